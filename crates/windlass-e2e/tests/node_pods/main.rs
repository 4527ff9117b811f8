//! Pods of a real kubelet with images from `windlass node`, mounted by a real containerd.
//!
//! One cluster for all: first the cases that do not disturb each other, side by side, then those that kill something.
//! `WINDLASS_CLUSTER_IMAGES=containerd` tries the cases of the first kind with containerd's own image service instead,
//! which shows whether a failure is ours.

mod beside;
mod credentials;
mod deaths;
mod kinds;
mod policies;
mod scene;

use windlass_e2e::cases;
use windlass_e2e::cluster::cases::{try_all, try_one_by_one};

use beside::*;
use credentials::*;
use deaths::*;
use kinds::*;
use policies::*;
use scene::Scene;

#[test]
fn pods_of_a_kubelet_run_with_our_images() {
    let Some(scene) = Scene::new("pods_of_a_kubelet_run_with_our_images") else { return };
    try_all(
        &scene,
        &cases![
            a_wrong_pull_secret_is_an_error_then_a_back_off_and_repaired_the_pod_runs,
            a_private_image_runs_by_an_image_pull_secret,
            a_private_image_runs_by_the_secret_of_a_service_account,
            a_private_image_does_not_run_without_a_secret,
            never_and_absent_is_never_pulled,
            never_and_present_runs_without_a_request,
            always_with_the_same_digest_asks_for_no_layer,
            a_moved_tag_runs_the_new_image,
            an_image_by_digest_runs,
            a_missing_image_is_an_error_that_says_so,
            the_entry_of_an_index_for_this_machine_runs,
            an_image_of_sixty_layers_runs,
            a_numeric_user_passes_run_as_non_root,
            a_named_user_runs_but_does_not_pass_run_as_non_root,
            root_does_not_pass_run_as_non_root,
            two_pods_write_without_seeing_each_other,
        ],
    );
    if scene.has_daemon() {
        try_all(
            &scene,
            &cases![
                ctr_and_containerds_cri_see_and_run_what_we_pulled,
                a_forced_collection_of_containerd_removes_nothing_in_use,
                what_other_hands_remove_or_tag_is_noticed_soon,
            ],
        );
        try_one_by_one(
            &scene,
            &cases![
                pods_keep_running_while_the_daemon_is_dead_and_new_ones_start_after,
                a_pull_cut_off_by_the_daemons_death_keeps_its_finished_layers,
                pods_and_images_outlive_a_crash_of_containerd,
                layers_of_both_forms_make_one_root,
            ],
        );
    }
    scene.assert_no_password_was_told();
}

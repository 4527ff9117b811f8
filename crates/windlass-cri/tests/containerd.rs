//! What the handover and the snapshots service promise, with a real containerd.

mod containerd_support;

use containerd_support::{GREETING, Rig, check_root, enclosed, eventually, stacked};
use windlass_core::digest::Digest;
use windlass_cri::containerd::Seen;
use windlass_store::SnapshotFormat;
use windlass_testkit::images::{Index, small_for};

/// The label that keeps the layers of an image.
const KEEPS_LAYERS: &str = "containerd.io/gc.ref.snapshot.windlass";

fn top(rig: &Rig, id: &Digest) -> String {
    rig.store.find_id(id).unwrap().unwrap().layers.last().unwrap().chain_id.to_string()
}

#[test]
fn what_is_handed_over_runs_and_survives_collections() {
    enclosed("what_is_handed_over_runs_and_survives_collections", async |home| {
        let rig = Rig::start(&home).await;
        let image = stacked("app", 4);
        let index = Index::of([image.clone(), small_for("other", "arm64", None)]);
        let (name, id) = rig.deliver(&index.bundle(), "team/app", SnapshotFormat::Auto).await;
        assert_eq!(&id, image.id());

        // Three records that lead to the index, and what a pull by containerd's own CRI would show.
        let host = rig.registry.host();
        let by_digest = format!("{host}/team/app@{}", index.index.digest);
        let mut names = rig.image_names();
        names.sort();
        let mut want = vec![name.clone(), by_digest.clone(), id.to_string()];
        want.sort();
        assert_eq!(names, want);
        let shown = rig.shown(&name).await.unwrap();
        assert_eq!(
            (shown.id.as_str(), shown.repo_tags, shown.repo_digests),
            (id.as_str(), vec![name.clone()], vec![by_digest])
        );
        let documents = [&index.index, &image.manifest, &image.config].map(|content| content.bytes.len());
        let layers: usize = image.layers.iter().map(|layer| layer.blob.bytes.len()).sum();
        assert_eq!(shown.size, (documents.iter().sum::<usize>() + layers) as u64);
        let mut blobs = rig.names(&["content", "ls"]);
        blobs.sort();
        let mut want = [&index.index, &image.manifest, &image.config].map(|content| content.digest.to_string());
        want.sort();
        assert_eq!(blobs, want, "the documents and nothing else");

        assert_eq!(rig.run_once(&name, "first"), GREETING);
        rig.collect();
        assert_eq!(rig.snapshots().len(), 4);
        assert_eq!(rig.run_once(&name, "second"), GREETING);
        let root = rig.run_on(&name, "third");
        check_root(&root, "app", 4);

        // Without the label the same collection takes the layers, so it is the label that keeps them.
        rig.end("third");
        rig.ctr(&["content", "label", id.as_str(), &format!("{KEEPS_LAYERS}=")]);
        rig.collect();
        assert_eq!(rig.snapshots(), [""; 0]);
        assert!(rig.shown(&name).await.is_some(), "its CRI goes on listing the image: a ghost");
        assert!(
            !rig.command(&["run", "--rm", "--snapshotter", "windlass", &name, "ghost"])
                .output()
                .unwrap()
                .status
                .success()
        );
        // The layers are in the store all the while; handed over again, the image runs.
        assert_eq!(rig.handover.after_pull(&id).await.unwrap(), Seen::Yes);
        assert_eq!(rig.run_once(&name, "healed"), GREETING);

        let removal = rig.handover.remove(&id).await.unwrap();
        assert_eq!(removal.records, 3);
        drop(removal);
        assert_eq!((rig.image_names(), rig.names(&["content", "ls"]), rig.snapshots()), (vec![], vec![], vec![]));
        assert_eq!(rig.store.snapshots().list().unwrap(), []);
        eventually("its CRI has forgotten it", async || rig.shown(id.as_str()).await.is_none()).await;
        assert_eq!(rig.handover.remove(&id).await.unwrap().records, 0, "what is gone may be removed");
    });
}

#[test]
fn layers_of_every_form_and_number_run() {
    enclosed("layers_of_every_form_and_number_run", async |home| {
        let rig = Rig::start(&home).await;
        for (case, layers, format) in [
            ("dirs-60", 60, SnapshotFormat::Overlay),
            ("auto-60", 60, SnapshotFormat::Auto),
            ("dirs-200", 200, SnapshotFormat::Overlay),
            ("auto-200", 200, SnapshotFormat::Auto),
        ] {
            let image = stacked(case, layers);
            let (name, _) = rig.deliver(&image.bundle(), case, format).await;
            let root = rig.run_on(&name, case);
            check_root(&root, case, layers);
            rig.end(case);
        }
        // The lower layers as directories, those on top as image files.
        let lower = rig.registry.place(&stacked("mixed", 3).bundle(), "lower", "1");
        rig.pull(&lower, SnapshotFormat::Overlay).await;
        let (name, id) = rig.deliver(&stacked("mixed", 6).bundle(), "mixed", SnapshotFormat::Auto).await;
        check_root(&rig.run_on(&name, "mixed"), "mixed", 6);
        // In use, its layers stay whatever is removed and collected.
        drop(rig.handover.remove(&id).await.unwrap());
        rig.store.forget_image(&id).unwrap();
        rig.collect();
        rig.store.gc(&windlass_store::GcRequest::sweep()).unwrap();
        assert!(rig.runs("mixed"));
        check_root(&home.join("state/io.containerd.runtime.v2.task/k8s.io/mixed/rootfs"), "mixed", 6);
        rig.end("mixed");
    });
}

#[test]
fn containerd_unpacks_what_we_do_not_hold_and_adopts_what_we_do() {
    enclosed("containerd_unpacks_what_we_do_not_hold_and_adopts_what_we_do", async |home| {
        let rig = Rig::start(&home).await;
        let name = rig.registry.place(&stacked("theirs", 3).bundle(), "theirs", "1");
        rig.ctr(&["images", "pull", "--snapshotter", "windlass", "--plain-http", &name]);
        assert_eq!(rig.run_once(&name, "theirs"), GREETING);
        check_root(&rig.run_on(&name, "theirs-on"), "theirs", 3);
        rig.collect();
        assert!(rig.runs("theirs-on"));
        rig.end("theirs-on");

        // Its own CRI asks for layers by their label: what the store has is not even downloaded.
        let ours = stacked("ours", 3);
        let pulled = rig.registry.place(&ours.bundle(), "ours", "1");
        rig.pull(&pulled, SnapshotFormat::Auto).await;
        rig.registry.take_requests();
        let image = Some(windlass_proto::cri::v1::ImageSpec { image: pulled.clone(), ..Default::default() });
        let request = windlass_proto::cri::v1::PullImageRequest { image, auth: None, sandbox_config: None };
        let answer = rig.cri().pull_image(request).await.unwrap().into_inner();
        assert_eq!(answer.image_ref, ours.id().as_str());
        let asked: Vec<String> = rig.registry.take_requests().iter().map(|request| format!("{request:?}")).collect();
        for layer in &ours.layers {
            assert!(!asked.iter().any(|line| line.contains(layer.blob.digest.hex())), "{asked:#?}");
        }
        assert_eq!(rig.run_once(&pulled, "ours"), GREETING);
        // What both of us know is one image, and goes with all that its own pull left.
        assert_eq!(rig.handover.after_pull(ours.id()).await.unwrap(), Seen::Yes);
        let of_ours = |blobs: &[String]| blobs.contains(&ours.id().to_string());
        assert!(of_ours(&rig.names(&["content", "ls"])));
        assert_eq!(rig.handover.remove(ours.id()).await.unwrap().records, 3);
        assert!(!of_ours(&rig.names(&["content", "ls"])));

        // An image of ours on layers that containerd has by its own names.
        let (name, _) = rig.deliver(&stacked("theirs", 5).bundle(), "taller", SnapshotFormat::Auto).await;
        check_root(&rig.run_on(&name, "taller"), "theirs", 5);
        rig.end("taller");
    });
}

#[test]
fn many_images_are_handed_over_at_once_and_again() {
    enclosed("many_images_are_handed_over_at_once_and_again", async |home| {
        let rig = Rig::start(&home).await;
        let mut ids = Vec::new();
        for n in 0..12 {
            // Some share layers, two are one image under two names.
            let name = rig.registry.place(&stacked(&format!("app{}", n / 2), 2 + n).bundle(), &format!("app{n}"), "1");
            ids.push(rig.pull(&name, SnapshotFormat::Auto).await);
        }
        for _ in 0..2 {
            let handing = ids.iter().chain(&ids).map(|id| rig.handover.after_pull(id));
            for seen in futures_util::future::join_all(handing).await {
                assert_eq!(seen.unwrap(), Seen::Yes);
            }
        }
        for n in 0..12 {
            let name = rig.registry.reference(&format!("app{n}"), "1");
            assert_eq!(rig.run_once(&name, &format!("app{n}")), GREETING);
        }
        eventually("no lease is left", async || rig.ctr(&["leases", "ls", "-q"]).is_empty()).await;
        for removal in futures_util::future::join_all(ids.iter().map(|id| rig.handover.remove(id))).await {
            drop(removal.unwrap());
        }
        assert_eq!((rig.image_names(), rig.snapshots()), (vec![], vec![]));
        assert!(rig.store.find_id(&ids[0]).unwrap().is_some(), "the store is nobody's but ours");
    });
}

#[test]
fn a_handover_that_ends_at_any_point_is_done_again() {
    use std::time::Duration;

    enclosed("a_handover_that_ends_at_any_point_is_done_again", async |home| {
        let mut rig = Rig::start(&home).await;
        let name = rig.registry.place(&stacked("app", 5).bundle(), "app", "1");
        let id = rig.pull(&name, SnapshotFormat::Auto).await;
        // Given up by the caller, later and later, until it was not.
        let mut wait = Duration::ZERO;
        while tokio::time::timeout(wait, rig.handover.after_pull(&id)).await.is_err() {
            wait += Duration::from_millis(5);
            rig.collect();
        }
        assert_eq!(rig.run_once(&name, "given-up"), GREETING);
        // Removed and handed over by many at once; whatever the order was, the last one counts.
        let doing = (0..12).map(|n| {
            let (rig, id) = (&rig, &id);
            async move {
                match n % 2 {
                    0 => drop(rig.handover.after_pull(id).await),
                    _ => drop(rig.handover.remove(id).await.unwrap()),
                }
            }
        });
        futures_util::future::join_all(doing).await;
        assert_eq!(rig.handover.after_pull(&id).await.unwrap(), Seen::Yes);
        assert_eq!(rig.run_once(&name, "contested"), GREETING);
        // containerd is killed in the middle.
        for wait in [10, 40, 80] {
            drop(rig.handover.remove(&id).await.unwrap());
            let handing = tokio::spawn({
                let (handover, id) = (rig.handover.clone(), id.clone());
                async move { handover.after_pull(&id).await }
            });
            tokio::time::sleep(Duration::from_millis(wait)).await;
            rig.kill_containerd();
            if let Err(error) = handing.await.unwrap() {
                assert!(error.to_string().contains("containerd"), "{error}");
            }
            assert!(rig.handover.version().await.is_err());
            rig.start_containerd();
            eventually("it is handed over", async || rig.handover.after_pull(&id).await.is_ok()).await;
            rig.collect();
            assert_eq!(rig.run_once(&name, &format!("killed-{wait}")), GREETING);
        }
        // What nobody finished is forgotten by a look at everything.
        drop(rig.handover.remove(&id).await.unwrap());
        rig.store.forget_image(&id).unwrap();
        rig.handover.check().await.unwrap();
        eventually("no lease is left", async || rig.ctr(&["leases", "ls", "-q"]).is_empty()).await;
        rig.collect();
        assert_eq!((rig.image_names(), rig.snapshots()), (vec![], vec![]));
        assert_eq!(rig.store.snapshots().list().unwrap(), []);
    });
}

#[test]
fn what_others_change_in_containerd_is_repeated_here() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use windlass_core::pin::PinSource;

    enclosed("what_others_change_in_containerd_is_repeated_here", async |home| {
        let rig = Rig::start(&home).await;
        let changes = Arc::new(AtomicUsize::new(0));
        let stop = tokio_util::sync::CancellationToken::new();
        let watching = tokio::spawn({
            let (handover, changes, stop) = (rig.handover.clone(), changes.clone(), stop.clone());
            async move {
                let count = move || {
                    changes.fetch_add(1, Ordering::SeqCst);
                };
                handover.run(count, stop).await
            }
        });
        let (first, first_id) = rig.deliver(&stacked("first", 2).bundle(), "first", SnapshotFormat::Auto).await;
        let (second, second_id) = rig.deliver(&stacked("second", 3).bundle(), "second", SnapshotFormat::Auto).await;
        let find = |name: &str| rig.store.find(name).unwrap().map(|image| image.id);
        let within_a_second = |took: Duration| assert!(took < Duration::from_secs(1), "{took:?}");

        // A new name, and one that moves.
        let copy = format!("{}/copy:2", rig.registry.host());
        rig.ctr(&["images", "tag", &first, &copy]);
        within_a_second(eventually("the new name", async || find(&copy).as_ref() == Some(&first_id)).await);
        rig.knows(&copy, first_id.as_str()).await;
        rig.ctr(&["images", "tag", "--force", &second, &copy]);
        within_a_second(eventually("the moved name", async || find(&copy).as_ref() == Some(&second_id)).await);
        rig.knows(&copy, second_id.as_str()).await;
        rig.ctr(&["images", "rm", &copy]);
        within_a_second(eventually("the removed name", async || find(&copy).is_none()).await);
        assert_eq!(find(&second).as_ref(), Some(&second_id));
        // Told right after the store has changed.
        eventually("somebody is told", async || changes.load(Ordering::SeqCst) >= 3).await;

        // An image goes with its last record.
        let records: Vec<String> = rig.image_names().into_iter().filter(|name| name.contains("/first")).collect();
        for record in records.iter().chain([&first_id.to_string()]) {
            rig.ctr(&["images", "rm", record]);
        }
        within_a_second(eventually("the removed image", async || find(first_id.as_str()).is_none()).await);
        assert!(find(&first).is_none() && find(&second).is_some());

        // What we do ourselves comes back as events, and is left alone.
        let (first, id) = rig.deliver(&stacked("first", 2).bundle(), "first", SnapshotFormat::Auto).await;
        let removal = rig.handover.remove(&id).await.unwrap();
        rig.store.forget_image(&id).unwrap();
        drop(removal);
        rig.pull(&first, SnapshotFormat::Auto).await;
        assert_eq!(rig.handover.after_pull(&id).await.unwrap(), Seen::Yes);
        // An event that comes after those above was handled after them.
        rig.ctr(&["images", "tag", &second, &copy]);
        eventually("the last event", async || find(&copy).is_some()).await;
        assert_eq!(find(&first), Some(id.clone()));
        assert_eq!(rig.run_once(&first, "again"), GREETING);

        // Pins are shown, and taken back.
        rig.store.pin(id.as_str(), &PinSource::user(), "").unwrap();
        rig.handover.after_pull(&id).await.unwrap();
        assert!(rig.ctr(&["images", "ls"]).contains("io.cri-containerd.pinned=pinned"));
        rig.store.unpin(id.as_str(), &PinSource::user()).unwrap();
        rig.handover.after_pull(&id).await.unwrap();
        assert!(!rig.ctr(&["images", "ls"]).contains("pinned"));
        stop.cancel();
        watching.await.unwrap();
    });
}

#[test]
fn a_ghost_is_found_and_healed() {
    enclosed("a_ghost_is_found_and_healed", async |home| {
        let mut rig = Rig::start(&home).await;
        let (name, id) = rig.deliver(&stacked("app", 3).bundle(), "app", SnapshotFormat::Auto).await;
        let theirs = rig.registry.place(&stacked("theirs", 2).bundle(), "theirs", "1");
        rig.ctr(&["images", "pull", "--snapshotter", "windlass", "--plain-http", &theirs]);
        let root = rig.run_on(&name, "before");
        let checked = rig.handover.check().await.unwrap();
        assert_eq!((checked.images, checked.healed, checked.touched, checked.failed), (1, 0, 0, 0));

        // Layers that were collected.
        rig.ctr(&["content", "label", id.as_str(), &format!("{KEEPS_LAYERS}=")]);
        rig.end("before");
        rig.collect();
        assert!(!rig.snapshots().contains(&top(&rig, &id)));
        assert_eq!(rig.handover.check().await.unwrap().healed, 1);
        assert_eq!(rig.run_once(&name, "layers"), GREETING);
        // A document that is gone.
        let manifest = rig.store.find_id(&id).unwrap().unwrap().manifest().unwrap().to_string();
        rig.ctr(&["content", "rm", &manifest]);
        assert_eq!(rig.handover.check().await.unwrap().healed, 1);
        assert_eq!(rig.run_once(&name, "manifest"), GREETING);
        // A record that is gone.
        rig.ctr(&["images", "rm", &name]);
        assert_eq!(rig.handover.check().await.unwrap().healed, 1);
        assert_eq!(rig.run_once(&name, "record"), GREETING);

        // containerd crashes: containers go on, and nothing is lost.
        let root_again = rig.run_on(&name, "running");
        assert_ne!(root, root_again);
        rig.kill_containerd();
        check_root(&root_again, "app", 3);
        rig.start_containerd();
        eventually("the list", async || rig.shown(&name).await.is_some()).await;
        assert!(rig.runs("running"));
        assert_eq!(rig.handover.check().await.unwrap().healed, 0);

        // It starts while we are down: its CRI drops every image of ours, and theirs.
        rig.stop_serving().await;
        rig.kill_containerd();
        rig.start_containerd();
        eventually("the CRI of containerd is up", async || {
            rig.cri().list_images(windlass_proto::cri::v1::ListImagesRequest::default()).await.is_ok()
        })
        .await;
        assert!(rig.shown(&name).await.is_none() && rig.shown(&theirs).await.is_none(), "the case does not arise");
        rig.serve();
        let stop = tokio_util::sync::CancellationToken::new();
        let watching = tokio::spawn({
            let (handover, stop) = (rig.handover.clone(), stop.clone());
            async move { handover.run(|| (), stop).await }
        });
        eventually("both are listed again", async || {
            rig.shown(&name).await.is_some() && rig.shown(&theirs).await.is_some()
        })
        .await;
        // containerd finds us again some seconds after we are back.
        eventually("containers start", async || {
            rig.command(&["snapshots", "--snapshotter", "windlass", "ls"]).output().unwrap().status.success()
        })
        .await;
        assert_eq!(rig.run_once(&name, "after"), GREETING);
        assert_eq!(rig.run_once(&theirs, "after-theirs"), GREETING);
        check_root(&root_again, "app", 3);
        rig.end("running");
        stop.cancel();
        watching.await.unwrap();
    });
}

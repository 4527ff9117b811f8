use proptest::prelude::*;

use super::*;

fn digest(hex: &str) -> Digest {
    Digest::parse(&format!("sha256:{hex}")).expect("a digest")
}

/// An ID that begins like this and goes on with zeros.
fn id(beginning: &str) -> Digest {
    digest(&format!("{beginning:0<64}"))
}

fn entry(id: Digest, tags: &[&str], digests: &[&str]) -> ImageEntry {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let manifest = (Digest::sha256(id.as_str().as_bytes()), None);
    ImageEntry {
        id,
        repo_tags: owned(tags),
        repo_digests: owned(digests),
        more_digests: Vec::new(),
        size_bytes: 1,
        user: ImageUser::Unset,
        pinned: false,
        manifest,
    }
}

fn found(index: &Index, text: &str) -> Option<Digest> {
    match index.look_up(text) {
        Lookup::Found(image) => Some(image.id.clone()),
        Lookup::Absent => None,
        Lookup::Ambiguous => panic!("{text} is ambiguous"),
    }
}

#[test]
fn every_form_of_a_name_finds_its_image() {
    let m = Digest::sha256(b"manifest");
    let busybox = id("cafe");
    let app = id("beef");
    let by_digest = format!("registry.example:5000/team/app@{m}");
    let index = Index::new([
        entry(busybox.clone(), &["docker.io/library/busybox:latest", "docker.io/library/busybox:1.36"], &[]),
        entry(app.clone(), &["registry.example:5000/team/app:v1"], &[&by_digest]),
    ]);
    let table = [
        (busybox.to_string(), Some(&busybox)),
        (busybox.hex().to_owned(), Some(&busybox)),
        ("cafe".to_owned(), Some(&busybox)),
        ("c".to_owned(), Some(&busybox)),
        ("sha256:cafe0".to_owned(), Some(&busybox)),
        ("busybox".to_owned(), Some(&busybox)),
        ("docker.io/busybox".to_owned(), Some(&busybox)),
        ("index.docker.io/library/busybox".to_owned(), Some(&busybox)),
        ("busybox:1.36".to_owned(), Some(&busybox)),
        ("busybox:1.37".to_owned(), None),
        ("registry.example:5000/team/app:v1".to_owned(), Some(&app)),
        ("registry.example:5000/team/app".to_owned(), None),
        (by_digest.clone(), Some(&app)),
        (format!("registry.example:5000/team/app:other@{m}"), Some(&app)),
        (format!("registry.example:5000/team/other@{m}"), None),
        (format!("busybox@{m}"), None),
        ("sha256:beef1".to_owned(), None),
        ("sha512:beef".to_owned(), None),
        ("CAFE".to_owned(), None),
        ("SHA256:cafe".to_owned(), None),
        ("sha256:".to_owned(), None),
        (String::new(), None),
        ("0".repeat(64), None),
        (format!("sha256:{}", "0".repeat(64)), None),
        ("UPPER/case:X".to_owned(), None),
        ("c".repeat(NAME_MAX_BYTES + 1), None),
        ("http://registry.example:5000/team/app:v1".to_owned(), None),
    ];
    for (text, want) in table {
        assert_eq!(found(&index, &text).as_ref(), want, "{text}");
    }
}

#[test]
fn a_name_stands_before_the_beginning_of_an_id() {
    let named = id("1111");
    let begun = id("cafe");
    let index = Index::new([
        entry(named.clone(), &["docker.io/library/cafe:latest", "docker.io/library/sha256:cafe"], &[]),
        entry(begun.clone(), &[], &[]),
    ]);
    assert_eq!(found(&index, "cafe").as_ref(), Some(&named));
    assert_eq!(found(&index, "sha256:cafe").as_ref(), Some(&named));
    assert_eq!(found(&index, "cafe0").as_ref(), Some(&begun));
}

#[test]
fn a_beginning_of_several_ids_is_an_error() {
    let index = Index::new([entry(id("ab1"), &[], &[]), entry(id("ab2"), &[], &[]), entry(id("cd"), &[], &[])]);
    for text in ["a", "ab", "sha256:ab"] {
        assert_eq!(index.look_up(text), Lookup::Ambiguous, "{text}");
    }
    assert_eq!(found(&index, "ab1"), Some(id("ab1")));
    assert_eq!(found(&index, "c"), Some(id("cd")));
}

#[test]
fn a_whole_id_is_never_ambiguous() {
    let short = id("ab");
    let long = Digest::parse(&format!("sha512:{}{}", short.hex(), short.hex())).expect("a digest");
    let index = Index::new([entry(long.clone(), &[], &[]), entry(short.clone(), &[], &[])]);
    assert_eq!(found(&index, short.hex()), Some(short.clone()));
    assert_eq!(index.look_up("ab"), Lookup::Ambiguous);
    assert_eq!(found(&index, "sha512:ab"), Some(long.clone()));
    assert_eq!(found(&index, long.hex()), Some(long));
}

#[test]
fn the_user_is_a_number_or_a_name() {
    let name = |name: &str| ImageUser::Name(name.to_owned());
    let table = [
        ("", ImageUser::Unset),
        (":0", ImageUser::Unset),
        ("0", ImageUser::Uid(0)),
        ("0:0", ImageUser::Uid(0)),
        ("1000:staff", ImageUser::Uid(1000)),
        ("-1", ImageUser::Uid(-1)),
        ("+7", ImageUser::Uid(7)),
        ("007", ImageUser::Uid(7)),
        ("9223372036854775807", ImageUser::Uid(i64::MAX)),
        ("9223372036854775808", name("9223372036854775808")),
        ("nobody", name("nobody")),
        ("nobody:nogroup", name("nobody")),
        ("1_000", name("1_000")),
        (" 1", name(" 1")),
    ];
    for (user, want) in table {
        assert_eq!(ImageUser::of_config(user), want, "{user:?}");
    }
}

/// The rules in words, one after the other, over a list.
fn model(images: &[ImageEntry], text: &str) -> Lookup {
    let hit = |image: &ImageEntry| Lookup::Found(Arc::new(image.clone()));
    if let Some(image) = images.iter().find(|image| image.id.as_str() == text) {
        return hit(image);
    }
    if Digest::parse(text).is_ok() {
        return Lookup::Absent;
    }
    if let Ok(reference) = Reference::parse(text) {
        let repository = reference.repository();
        let wanted = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => format!("{repository}@{digest}"),
            (None, tag) => format!("{repository}:{}", tag.unwrap_or("latest")),
        };
        let has = |image: &&ImageEntry| {
            [&image.repo_tags, &image.repo_digests, &image.more_digests].iter().any(|names| names.contains(&wanted))
        };
        if let Some(image) = images.iter().find(has) {
            return hit(image);
        }
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let matching: Vec<_> = images.iter().filter(|image| !hex.is_empty() && image.id.hex().starts_with(hex)).collect();
    match matching.as_slice() {
        [] => Lookup::Absent,
        [image] => hit(image),
        _ => Lookup::Ambiguous,
    }
}

/// IDs that often begin alike, names that often look like beginnings of IDs.
fn images() -> impl Strategy<Value = Vec<ImageEntry>> {
    let one = ("[ab]{0,3}", proptest::collection::vec("[ab]{1,3}(/[ab]{1,2})?(:[ab]{1,2})?", 0..3), any::<bool>());
    proptest::collection::vec(one, 0..12).prop_map(|rows| {
        let mut seen = std::collections::HashSet::new();
        let mut taken = std::collections::HashSet::new();
        let rows = rows.into_iter().map(|(beginning, names, by_digest)| (id(&beginning), names, by_digest));
        rows.filter(|(id, ..)| seen.insert(id.clone()))
            .map(|(id, names, by_digest)| {
                let names = names.iter().filter_map(|name| Reference::parse(name).ok());
                let names: Vec<_> = names.filter(|name| taken.insert(name.runtime_ref())).collect();
                let mut image = entry(id, &[], &[]);
                for name in names {
                    image.repo_tags.push(name.runtime_ref());
                    let digest = format!("{}@{}", name.repository(), image.manifest.0);
                    let list = if by_digest { &mut image.repo_digests } else { &mut image.more_digests };
                    if !list.contains(&digest) {
                        list.push(digest);
                    }
                }
                image
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn a_look_up_finds_what_a_search_through_all_would_find(
        images in images(),
        texts in proptest::collection::vec("(sha256:)?[ab]{0,3}0{0,3}|[ab]{1,3}(/[ab]{1,2})?(:[ab]{1,2})?|\\PC{0,8}", 1..20),
    ) {
        let index = Index::new(images.clone());
        let own = images.iter().flat_map(|image| {
            let whole = [image.id.to_string(), image.id.hex().to_owned(), image.id.hex()[..7].to_owned()];
            whole.into_iter().chain(image.repo_tags.clone()).chain(image.repo_digests.clone()).chain(image.more_digests.clone())
        });
        for text in texts.into_iter().chain(own) {
            prop_assert_eq!(index.look_up(&text), model(&images, &text), "{}", text);
        }
        prop_assert_eq!(index.images().len(), images.len());
        for image in &images {
            prop_assert_eq!(index.by_id(&image.id).map(|found| &**found), Some(image));
        }
    }
}

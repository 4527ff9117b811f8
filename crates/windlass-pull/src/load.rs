//! Images out of layouts and archives into the store, by the same checks and the same path as a pull.
//!
//! Nothing inside an image names anything: names come from the archive's own index (or its `RepoTags`), or from the
//! caller. Their compressed layers are kept, since no registry could give them again.
//!
//! Invariants: `a_loaded_image_is_the_saved_one`, `archives_pass_the_same_checks_as_pulls`.

use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;
use windlass_core::reason::Reason;
use windlass_core::reference::Reference;
use windlass_store::LeaseOptions;

use crate::PullError;
use crate::archive::{Archive, ImageSource, Listed};
use crate::engine::{Engine, blocking};
use crate::events::{EventSink, Events};
use crate::origin::Origin;
use crate::pull::{Names, bring, wanted};
use crate::request::{PullOptions, PullReport};

/// An archive to be loaded.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// Where it is; a name in it selects one image, otherwise all are loaded.
    pub source: ImageSource,
    /// A name to give instead of those in the archive; only for one image.
    pub name: Option<String>,
    /// The rest. Of an index the entry for the platform is loaded.
    pub options: PullOptions,
}

impl Engine {
    /// Loads every image of an archive, or the one selected; each becomes visible by itself.
    ///
    /// # Errors
    /// The archive cannot be read, or an image of it breaks a rule; images before it stay loaded.
    pub async fn load(&self, request: LoadRequest, sink: Arc<dyn EventSink>) -> Result<Vec<PullReport>, PullError> {
        let archive = open(self, &request.source).await?;
        let images = selected(&archive, &request)?;
        let mut reports = Vec::new();
        for image in images {
            let began = Instant::now();
            let names = names(&image, &request)?;
            let shown = names.first().map_or_else(|| image.root.digest.to_string(), Reference::familiar);
            let events = Events::new(sink.clone(), &shown);
            if names.is_empty() {
                events.warning("it has no full name in the archive and is kept by its image ID alone");
            }
            let origin = Origin::Archive { archive: archive.clone(), root: image.root.clone() };
            let names = Names::Loaded { shown: shown.clone(), names };
            let wanted = wanted(&self.inner, &request.options);
            let lease = LeaseOptions::load(&shown);
            let loaded = bring(&self.inner, origin, names, lease, &wanted, &request.options, &events, began).await;
            match &loaded {
                Ok(report) => events.finished(report.id.clone(), report.outcome),
                Err(_) => events.failed(),
            }
            reports.push(loaded?);
        }
        Ok(reports)
    }
}

/// Opens an archive; what has to be written down first goes to the store's own file system.
async fn open(engine: &Engine, source: &ImageSource) -> Result<Arc<Archive>, PullError> {
    let spool_dir = engine.store().root().to_owned();
    open_with(engine, source, &spool_dir).await
}

/// Opens an archive; what has to be written down first goes to `spool_dir`.
pub(crate) async fn open_with(
    engine: &Engine,
    source: &ImageSource,
    spool_dir: &Path,
) -> Result<Arc<Archive>, PullError> {
    let (source, limits, spool_dir) = (source.clone(), engine.inner.limits.clone(), spool_dir.to_owned());
    blocking(move || Archive::open(&source, &spool_dir, &limits)).await.map(Arc::new)
}

fn selected(archive: &Archive, request: &LoadRequest) -> Result<Vec<Listed>, PullError> {
    let by_name = match &request.source {
        ImageSource::Registry(_) | ImageSource::Detect { .. } => None,
        ImageSource::OciDir { name, .. }
        | ImageSource::OciArchive { name, .. }
        | ImageSource::DockerArchive { name, .. } => name.as_deref(),
    };
    match (by_name, &request.name) {
        (None, None) if archive.images.is_empty() => archive.select(None).map(|image| vec![image.clone()]),
        (None, None) => Ok(archive.images.clone()),
        (by_name, _) => archive.select(by_name).map(|image| vec![image.clone()]),
    }
}

/// What the image will be called here.
fn names(image: &Listed, request: &LoadRequest) -> Result<Vec<Reference>, PullError> {
    if let Some(given) = &request.name {
        return Ok(vec![Reference::parse(given).map_err(PullError::Reference)?]);
    }
    match (image.names.is_empty(), image.tags.first()) {
        (true, Some(tag)) => Err(PullError::Layout {
            path: path(&request.source),
            what: format!("the image is called {tag:?} only, without a repository; give it a name"),
            reason: Reason::InvalidReference,
        }),
        (true, None) | (false, _) => Ok(image.names.clone()),
    }
}

fn path(source: &ImageSource) -> std::path::PathBuf {
    match source {
        ImageSource::Registry(text) => text.into(),
        ImageSource::Detect { path }
        | ImageSource::OciDir { path, .. }
        | ImageSource::OciArchive { path, .. }
        | ImageSource::DockerArchive { path, .. } => path.clone(),
    }
}

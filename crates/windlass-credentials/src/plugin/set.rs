//! The programs in use: loaded once, again when a file changes, and never lost to a bad change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::load::{PluginConfigError, PluginSettings, Stamp, load, stamp};
use crate::providers::Slot;

/// What a reload came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Whether anything is different from before.
    pub changed: bool,
    /// How many providers there are now.
    pub providers: usize,
}

/// Which configuration of providers is in use.
#[derive(Clone, Debug)]
pub struct ProviderConfigState {
    /// The file or directory.
    pub path: PathBuf,
    /// The hash of the configuration in use, as a kubelet shows it; empty before the first use.
    pub hash: String,
    /// Why the latest change is not in use.
    pub refused: Option<Arc<PluginConfigError>>,
}

/// Every program of one configuration.
#[derive(Debug)]
pub(crate) struct PluginSet {
    settings: PluginSettings,
    current: Mutex<Current>,
    /// Held by whoever reads files, so that others wait for the result.
    reading: Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct Current {
    slots: Arc<[Arc<Slot>]>,
    hash: String,
    /// What the files looked like when they were read last, well or not.
    seen: Option<Stamp>,
    refused: Option<Arc<PluginConfigError>>,
}

impl PluginSet {
    pub(crate) fn new(settings: PluginSettings) -> PluginSet {
        PluginSet { settings, current: Mutex::default(), reading: Mutex::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.settings.config
    }

    pub(crate) fn slots(&self) -> Arc<[Arc<Slot>]> {
        Arc::clone(&lock(&self.current).slots)
    }

    /// Whether there is a configuration in use.
    pub(crate) fn is_loaded(&self) -> bool {
        !lock(&self.current).hash.is_empty()
    }

    pub(crate) fn state(&self) -> ProviderConfigState {
        let current = lock(&self.current).clone();
        ProviderConfigState { path: self.settings.config.clone(), hash: current.hash, refused: current.refused }
    }

    /// Reads the configuration if its files have changed since the last time. Blocks.
    pub(crate) fn refresh(&self) -> Result<(), Arc<PluginConfigError>> {
        let _reading = lock(&self.reading);
        let now = stamp(&self.settings);
        let current = lock(&self.current).clone();
        match current.refused {
            _ if current.seen.as_ref() != Some(&now) => self.read(now).map(|_| ()),
            // Programs may have been put in place since: before there is any configuration each look is a new try.
            Some(_) if current.hash.is_empty() => self.read(now).map(|_| ()),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Reads the configuration. Blocks.
    pub(crate) fn reload(&self) -> Result<Reloaded, Arc<PluginConfigError>> {
        let _reading = lock(&self.reading);
        self.read(stamp(&self.settings))
    }

    fn read(&self, seen: Stamp) -> Result<Reloaded, Arc<PluginConfigError>> {
        let loaded = load(&self.settings).map_err(Arc::new);
        let mut current = lock(&self.current);
        current.seen = Some(seen);
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                current.refused = Some(Arc::clone(&error));
                return Err(error);
            }
        };
        current.refused = None;
        let changed = current.hash != loaded.hash;
        if changed {
            let before = Arc::clone(&current.slots);
            let slots = loaded.config.providers.into_iter().map(|provider| {
                let same = before.iter().find(|slot| slot.config() == Some(&provider)).cloned();
                same.unwrap_or_else(|| Arc::new(Slot::plugin(provider, &self.settings)))
            });
            current.slots = slots.collect();
            current.hash = loaded.hash;
        }
        Ok(Reloaded { changed, providers: current.slots.len() })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Which images go to make room, and why. Pure: the store says what there is, this says what goes.
//!
//! In: images with their use, the disk, the settings, the time. Out: [`Victim`]s in the order of deletion, and why every
//! other image stays.
//! Source of truth: kubelet `pkg/kubelet/images/image_gc_manager.go`.
//!
//! Invariants: `pinned_and_used_images_are_never_chosen`, `least_recently_used_goes_first`,
//! `space_stops_when_enough_is_free`.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::digest::Digest;
use crate::keyring::Mode;
use crate::reason::Reason;

/// When images go. Kubelet: `imageGCHighThresholdPercent` and its relatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcSettings {
    /// Use of the disk, in percent, from which on space is made. 100 switches that off.
    pub high_percent: u8,
    /// Use of the disk, in percent, down to which space is made.
    pub low_percent: u8,
    /// Images known for less than this never go for space.
    pub min_age: Duration,
    /// Images unused for longer than this go in any case; zero switches that off.
    pub max_age: Duration,
}

impl Default for GcSettings {
    /// The kubelet's: 85 %, 80 %, 2 minutes, no maximum age.
    fn default() -> GcSettings {
        GcSettings { high_percent: 85, low_percent: 80, min_age: Duration::from_secs(120), max_age: Duration::ZERO }
    }
}

/// Why nothing could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GcError {
    /// A percentage above 100.
    #[error("{key} {value} is not between 0 and 100")]
    Percent {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: u8,
    },
    /// The thresholds cross.
    #[error("the low threshold {low} % must be below the high threshold {high} %")]
    Thresholds {
        /// `low_percent`.
        low: u8,
        /// `high_percent`.
        high: u8,
    },
    /// The file system says that it has no room at all. Kubelet: event `InvalidDiskCapacity`.
    #[error("invalid capacity 0 on image filesystem")]
    InvalidDiskCapacity,
}

impl GcError {
    /// The word for it in the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            GcError::Percent { .. } | GcError::Thresholds { .. } => Reason::InvalidConfig,
            GcError::InvalidDiskCapacity => Reason::IoError,
        }
    }
}

impl GcSettings {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`GcError::Percent`], [`GcError::Thresholds`].
    pub fn check(&self) -> Result<(), GcError> {
        for (key, value) in [("high threshold", self.high_percent), ("low threshold", self.low_percent)] {
            if value > 100 {
                return Err(GcError::Percent { key, value });
            }
        }
        let (low, high) = (self.low_percent, self.high_percent);
        if low >= high { Err(GcError::Thresholds { low, high }) } else { Ok(()) }
    }
}

/// What keeps an image, whatever its age.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Shield {
    /// A container or a mounted image volume uses it; by whom.
    InUse(String),
    /// It is pinned; by whom.
    Pinned(String),
    /// A pull or a push works on it; which.
    Leased(String),
}

impl fmt::Display for Shield {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shield::InUse(by) => write!(f, "in use by {by}"),
            Shield::Pinned(by) => write!(f, "pinned by {by}"),
            Shield::Leased(by) => write!(f, "held by {by}"),
        }
    }
}

/// An image, as far as collection cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUse {
    /// The image ID.
    pub id: Digest,
    /// Its size as the store reports it, shared layers included.
    pub size_bytes: u64,
    /// When it was first seen here.
    pub first_detected: Timestamp,
    /// When it was last used; `None` is never.
    pub last_used: Option<Timestamp>,
    /// What keeps it; empty for one that may go.
    pub shields: Vec<Shield>,
}

/// The file system of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its size.
    pub capacity_bytes: u64,
    /// What is free.
    pub available_bytes: u64,
}

impl Disk {
    /// How full it is, in percent, rounded up.
    ///
    /// # Errors
    /// [`GcError::InvalidDiskCapacity`].
    pub fn used_percent(&self) -> Result<u8, GcError> {
        let available = u128::from(self.available_bytes.min(self.capacity_bytes));
        let free =
            (available * 100).checked_div(u128::from(self.capacity_bytes)).ok_or(GcError::InvalidDiskCapacity)?;
        Ok(100 - u8::try_from(free).unwrap_or(100))
    }

    /// How many bytes are missing until no more than `low_percent` are used.
    fn bytes_above(&self, low_percent: u8) -> u64 {
        let wanted = u128::from(self.capacity_bytes) * u128::from(100 - low_percent) / 100;
        u64::try_from(wanted).unwrap_or(u64::MAX).saturating_sub(self.available_bytes.min(self.capacity_bytes))
    }
}

/// When it is, and since when there has been anybody to notice that an image was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The start of this run; images used at or after it are in use.
    pub now: Timestamp,
    /// How long use has been watched.
    pub watched_for: Duration,
}

/// Why an image goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Unused for longer than the maximum age.
    Age {
        /// For how long; `None` if it was never used.
        unused_for: Option<Duration>,
    },
    /// The disk is too full, and it is among the longest unused.
    Space,
    /// The node is under disk pressure and gives up whatever is unused.
    Pressure,
}

impl Why {
    /// The label of `kubelet_image_garbage_collected_total`.
    pub const fn label(self) -> &'static str {
        match self {
            Why::Age { .. } => "age",
            Why::Space | Why::Pressure => "space",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Age { unused_for: Some(time) } => write!(f, "unused for {}", days(*time)),
            Why::Age { unused_for: None } => f.write_str("never used, and older than the maximum age"),
            Why::Space => f.write_str("least recently used, and the disk is above the high threshold"),
            Why::Pressure => f.write_str("unused, and the node is under disk pressure"),
        }
    }
}

fn days(time: Duration) -> String {
    let hours = time.as_secs() / 3600;
    if hours >= 48 { format!("{} days", hours / 24) } else { format!("{hours} hours") }
}

/// An image that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// The image ID.
    pub id: Digest,
    /// Its size as reported.
    pub size_bytes: u64,
    /// Why it goes.
    pub why: Why,
}

/// Why an image stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Something protects it.
    Shielded(Vec<Shield>),
    /// It was used since this run began.
    JustUsed,
    /// It is younger than the minimum age.
    TooYoung,
    /// Nothing asks for it to go.
    NotNeeded,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kept::Shielded(shields) => {
                for (at, shield) in shields.iter().enumerate() {
                    write!(f, "{}{shield}", if at == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Kept::JustUsed => f.write_str("just used"),
            Kept::TooYoung => f.write_str("younger than the minimum age"),
            Kept::NotNeeded => f.write_str("nothing asks for its space"),
        }
    }
}

/// What goes and what stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// What goes, in this order.
    pub victims: Vec<Victim>,
    /// What stays, and why.
    pub kept: Vec<(Digest, Kept)>,
    /// Bytes that were to be freed; 0 where space was not the question.
    pub wanted_bytes: u64,
}

impl Choice {
    /// Sum of the victims' sizes as reported. Shared layers make it more than what becomes free.
    pub fn victim_bytes(&self) -> u64 {
        self.victims.iter().fold(0, |sum, victim| sum.saturating_add(victim.size_bytes))
    }

    /// Bytes still missing when all victims are gone. Kubelet: event `FreeDiskSpaceFailed`.
    pub fn missing_bytes(&self) -> u64 {
        self.wanted_bytes.saturating_sub(self.victim_bytes())
    }
}

/// Images unused for too long.
///
/// A kubelet begins only when it has watched for the maximum age itself, and then takes an image that was never used
/// for infinitely old; in our own mode use is on record, and the age of an unused image counts from its arrival. The
/// minimum age is not looked at.
pub fn old(images: &[ImageUse], settings: &GcSettings, clock: Clock, mode: Mode) -> Choice {
    let has_begun = !settings.max_age.is_zero()
        && match mode {
            Mode::Kubelet => clock.watched_for > settings.max_age,
            Mode::Windlass => true,
        };
    choose(images, 0, |image| {
        let since = match (image.last_used, mode) {
            (Some(used), _) => Some(used),
            (None, Mode::Kubelet) => None,
            (None, Mode::Windlass) => Some(image.first_detected),
        };
        let unused_for = since.map(|since| between(since, clock.now));
        let is_old = unused_for.is_none_or(|time| time > settings.max_age);
        if has_begun && is_old { Ok(Why::Age { unused_for }) } else { Err(Kept::NotNeeded) }
    })
}

/// Images to delete because the disk is too full, measured after [`old`] ones are gone.
///
/// # Errors
/// [`GcError::InvalidDiskCapacity`].
pub fn for_space(images: &[ImageUse], settings: &GcSettings, disk: Disk, clock: Clock) -> Result<Choice, GcError> {
    let used = disk.used_percent()?;
    let is_on = settings.high_percent < 100 && used >= settings.high_percent;
    let wanted_bytes = if is_on { disk.bytes_above(settings.low_percent.min(100)) } else { 0 };
    let mut chosen_bytes = 0_u64;
    Ok(choose(images, wanted_bytes, |image| {
        if chosen_bytes >= wanted_bytes {
            return Err(Kept::NotNeeded);
        }
        may_go(image, settings, clock)?;
        chosen_bytes = chosen_bytes.saturating_add(image.size_bytes);
        Ok(Why::Space)
    }))
}

/// Every unused image that is old enough: the kubelet's answer to disk pressure.
pub fn under_pressure(images: &[ImageUse], settings: &GcSettings, clock: Clock) -> Choice {
    choose(images, 0, |image| may_go(image, settings, clock).map(|()| Why::Pressure))
}

fn may_go(image: &ImageUse, settings: &GcSettings, clock: Clock) -> Result<(), Kept> {
    if image.last_used.is_some_and(|used| used >= clock.now) {
        return Err(Kept::JustUsed);
    }
    if between(image.first_detected, clock.now) < settings.min_age { Err(Kept::TooYoung) } else { Ok(()) }
}

/// Asks `judge` about each image that may go at all, least recently used first, then first seen first.
fn choose(images: &[ImageUse], wanted_bytes: u64, mut judge: impl FnMut(&ImageUse) -> Result<Why, Kept>) -> Choice {
    let mut order: Vec<&ImageUse> = images.iter().collect();
    // `None`, never used, sorts before every time.
    order.sort_by_key(|image| (image.last_used, image.first_detected, &image.id));
    let mut choice = Choice { wanted_bytes, ..Choice::default() };
    for image in order {
        let verdict = if image.shields.is_empty() { judge(image) } else { Err(Kept::Shielded(image.shields.clone())) };
        match verdict {
            Ok(why) => choice.victims.push(Victim { id: image.id.clone(), size_bytes: image.size_bytes, why }),
            Err(kept) => choice.kept.push((image.id.clone(), kept)),
        }
    }
    choice
}

/// Zero when the clock went backwards.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;

//! What an image can do.

/// A set of image features, as bits of `rbd/features.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(u64);

impl Features {
    /// Clones are possible.
    pub const LAYERING: Self = Self(1);
    /// The image is striped over its objects in another way than one after the other.
    pub const STRIPING: Self = Self(1 << 1);
    /// One client at a time writes.
    pub const EXCLUSIVE_LOCK: Self = Self(1 << 2);
    /// A map tells which objects exist.
    pub const OBJECT_MAP: Self = Self(1 << 3);
    /// The object map tells which objects changed between snapshots.
    pub const FAST_DIFF: Self = Self(1 << 4);
    /// Writes go through a journal.
    pub const JOURNALING: Self = Self(1 << 6);

    /// The features with these bits, known here or not.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits as librbd wants them.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Both sets together.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOrAssign for Features {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

impl std::ops::BitOr for Features {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

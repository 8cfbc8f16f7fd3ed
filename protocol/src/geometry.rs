//! Sizes and rectangles in pixels. No operation overflows, whatever the guest sent.

/// A size in pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Size {
    /// A size of `width` x `height` pixels.
    #[must_use]
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Whether there is no pixel in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// Number of pixels.
    #[must_use]
    pub fn pixels(&self) -> u64 {
        // The product of two 32-bit numbers always fits.
        u64::from(self.width).saturating_mul(u64::from(self.height))
    }
}

/// A rectangle in pixels, left and top edge inclusive, right and bottom edge exclusive.
///
/// Source: `struct virtio_gpu_rect`, section "Device Operation: controlq".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Rect {
    /// A rectangle with its top left corner at (`x`, `y`).
    #[must_use]
    pub const fn new(x: u32, y: u32, width: u32, height: u32) -> Self {
        Self {
            x,
            y,
            width,
            height,
        }
    }

    /// All of a picture of that size.
    #[must_use]
    pub const fn from_size(size: Size) -> Self {
        Self::new(0, 0, size.width, size.height)
    }

    /// Width and height.
    #[must_use]
    pub const fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }

    /// First column to the right of the rectangle; can be above `u32::MAX`.
    #[must_use]
    pub fn right(&self) -> u64 {
        u64::from(self.x).saturating_add(u64::from(self.width))
    }

    /// First row below the rectangle; can be above `u32::MAX`.
    #[must_use]
    pub fn bottom(&self) -> u64 {
        u64::from(self.y).saturating_add(u64::from(self.height))
    }

    /// Whether there is no pixel in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.size().is_empty()
    }

    /// Whether every edge lies inside a picture of that size. An empty rectangle on the far edge
    /// fits.
    #[must_use]
    pub fn fits_in(&self, size: Size) -> bool {
        self.right() <= u64::from(size.width) && self.bottom() <= u64::from(size.height)
    }

    /// Whether `other` lies completely inside this rectangle, edges included.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.x <= other.x
            && self.y <= other.y
            && other.right() <= self.right()
            && other.bottom() <= self.bottom()
    }

    /// The pixels that both have, or `None` when there are none.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let (x, width) = overlap((self.x, self.right()), (other.x, other.right()))?;
        let (y, height) = overlap((self.y, self.bottom()), (other.y, other.bottom()))?;
        Some(Self::new(x, y, width, height))
    }

    /// The smallest rectangle that holds both. Empty rectangles add nothing. A width or height
    /// that does not fit 32 bits becomes `u32::MAX`.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        if other.is_empty() {
            return *self;
        }
        if self.is_empty() {
            return *other;
        }
        let x = self.x.min(other.x);
        let y = self.y.min(other.y);
        Self::new(
            x,
            y,
            span(x, self.right().max(other.right())),
            span(y, self.bottom().max(other.bottom())),
        )
    }
}

/// Start and length of the common part of two intervals, `None` when it is empty.
fn overlap(a: (u32, u64), b: (u32, u64)) -> Option<(u32, u32)> {
    let start = a.0.max(b.0);
    match span(start, a.1.min(b.1)) {
        0 => None,
        length => Some((start, length)),
    }
}

/// Length of `start..end`, saturating at both ends of `u32`.
fn span(start: u32, end: u64) -> u32 {
    u32::try_from(end.saturating_sub(u64::from(start))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: u32 = u32::MAX;
    const EVERYTHING: Rect = Rect::new(0, 0, MAX, MAX);

    #[test]
    fn edges_do_not_overflow() {
        let r = Rect::new(MAX, MAX, MAX, MAX);
        assert_eq!(r.right(), 2 * u64::from(MAX));
        assert_eq!(r.bottom(), 2 * u64::from(MAX));
        assert!(!r.fits_in(Size::new(MAX, MAX)));
        assert!(EVERYTHING.fits_in(Size::new(MAX, MAX)));
        assert!(!Rect::new(1, 0, MAX, 1).fits_in(Size::new(MAX, MAX)));
        assert_eq!(
            Size::new(MAX, MAX).pixels(),
            u64::from(MAX) * u64::from(MAX)
        );
    }

    #[test]
    fn fits_in_counts_the_far_edges() {
        let size = Size::new(10, 5);
        assert!(Rect::new(0, 0, 10, 5).fits_in(size));
        assert!(Rect::new(9, 4, 1, 1).fits_in(size));
        assert!(!Rect::new(9, 4, 2, 1).fits_in(size));
        assert!(!Rect::new(9, 4, 1, 2).fits_in(size));
        assert!(Rect::new(10, 5, 0, 0).fits_in(size));
        assert!(!Rect::new(11, 5, 0, 0).fits_in(size));
    }

    #[test]
    fn intersect_clips_and_tells_nothing_in_common() {
        let a = Rect::new(10, 10, 10, 10);
        assert_eq!(
            a.intersect(&Rect::new(5, 15, 10, 100)),
            Some(Rect::new(10, 15, 5, 5))
        );
        assert_eq!(a.intersect(&Rect::new(20, 10, 5, 5)), None);
        assert_eq!(a.intersect(&Rect::new(0, 0, 10, 10)), None);
        assert_eq!(a.intersect(&Rect::new(12, 12, 0, 3)), None);
        assert_eq!(a.intersect(&EVERYTHING), Some(a));
        assert_eq!(
            Rect::new(MAX, MAX, MAX, MAX).intersect(&Rect::new(0, 0, MAX, MAX)),
            None
        );
        assert_eq!(
            Rect::new(MAX - 1, 0, MAX, 1).intersect(&EVERYTHING),
            Some(Rect::new(MAX - 1, 0, 1, 1))
        );
    }

    #[test]
    fn union_is_the_bounding_box() {
        let a = Rect::new(10, 10, 10, 10);
        assert_eq!(a.union(&Rect::new(0, 15, 5, 30)), Rect::new(0, 10, 20, 35));
        assert_eq!(a.union(&Rect::default()), a);
        assert_eq!(Rect::new(3, 3, 0, 9).union(&a), a);
        assert_eq!(
            Rect::new(0, 0, 1, 1).union(&Rect::new(MAX, MAX, MAX, MAX)),
            EVERYTHING
        );
    }

    #[test]
    fn contains_counts_edges() {
        let a = Rect::new(10, 10, 10, 10);
        assert!(a.contains(&a));
        assert!(a.contains(&Rect::new(19, 19, 1, 1)));
        assert!(!a.contains(&Rect::new(19, 19, 2, 1)));
        assert!(!a.contains(&Rect::new(9, 10, 1, 1)));
        assert!(!EVERYTHING.contains(&Rect::new(MAX, MAX, MAX, MAX)));
    }

    fn any_rect() -> impl Strategy<Value = Rect> {
        let number = prop_oneof![0..20u32, Just(MAX), Just(MAX - 1), any::<u32>()];
        [number.clone(), number.clone(), number.clone(), number]
            .prop_map(|[x, y, w, h]| Rect::new(x, y, w, h))
    }

    proptest! {
        #[test]
        fn intersection_lies_in_both_and_union_holds_both(a in any_rect(), b in any_rect()) {
            if let Some(common) = a.intersect(&b) {
                prop_assert!(!common.is_empty());
                prop_assert!(a.contains(&common) && b.contains(&common));
                prop_assert_eq!(b.intersect(&a), Some(common));
            }
            let both = a.union(&b);
            let saturated = both.width == MAX || both.height == MAX;
            if !saturated {
                prop_assert!(a.is_empty() || both.contains(&a));
                prop_assert!(b.is_empty() || both.contains(&b));
            }
        }

        #[test]
        fn fits_in_is_containment_in_the_whole(a in any_rect(), w: u32, h: u32) {
            let size = Size::new(w, h);
            prop_assert_eq!(a.fits_in(size), Rect::from_size(size).contains(&a));
        }
    }
}

//! Scales in half precision, which large values overflow.

use bytemuck::Pod;
use espalier_kernels::blocks::{
    BlockIq4Nl, BlockIq4Xs, BlockMxfp4, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1,
    BlockQ5K, BlockQ6K, BlockQ8_0, BlockTq1_0, BlockTq2_0,
};

use super::nearest::half_is_finite;

/// A block whose scales are stored in half precision.
pub(super) trait HalfScales: Pod + Send {
    /// Whether they are finite.
    fn is_finite(&self) -> bool;
}

macro_rules! half_scales {
    ($($block:ty: $($scale:ident),+;)+) => {
        $(impl HalfScales for $block {
            #[inline(always)]
            fn is_finite(&self) -> bool {
                $(half_is_finite(self.$scale))&&+
            }
        })+
    };
}

half_scales! {
    BlockQ4_0: d;
    BlockQ4_1: d, m;
    BlockQ5_0: d;
    BlockQ5_1: d, m;
    BlockQ8_0: d;
    BlockQ2K: d, dmin;
    BlockQ3K: d;
    BlockQ4K: d, dmin;
    BlockQ5K: d, dmin;
    BlockQ6K: d;
    BlockIq4Nl: d;
    BlockIq4Xs: d;
    BlockTq1_0: d;
    BlockTq2_0: d;
}

impl HalfScales for BlockMxfp4 {
    /// A power of two reaches as far as `f32`.
    #[inline(always)]
    fn is_finite(&self) -> bool {
        true
    }
}

//! The inner loop in AVX-512 and in AVX2.

use std::arch::x86_64::*;

use super::{Input, Lanes, Output, Products, blocks};

struct Avx512;
struct Avx2;

/// # Safety
/// As `blocks`, on a processor with these features.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub(super) unsafe fn add_products_avx512(
    input: Input<'_>,
    weight: &[f32],
    in_rows: &[u32],
    out_rows: &[u32],
    output: &mut Output<'_>,
) {
    // SAFETY: the caller's.
    unsafe {
        match output.width {
            64 => blocks::<Avx512, 6, 4>(input, weight, in_rows, out_rows, output),
            48 => blocks::<Avx512, 8, 3>(input, weight, in_rows, out_rows, output),
            32 => blocks::<Avx512, 8, 2>(input, weight, in_rows, out_rows, output),
            24 => blocks::<Avx2, 8, 3>(input, weight, in_rows, out_rows, output),
            16 => blocks::<Avx512, 8, 1>(input, weight, in_rows, out_rows, output),
            8 => blocks::<Avx2, 8, 1>(input, weight, in_rows, out_rows, output),
            width => unreachable!("blocks of {width} columns are never made"),
        }
    }
}

/// # Safety
/// As `blocks`, on a processor with these features.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn add_products_avx2(
    input: Input<'_>,
    weight: &[f32],
    in_rows: &[u32],
    out_rows: &[u32],
    output: &mut Output<'_>,
) {
    // SAFETY: the caller's.
    unsafe {
        match output.width {
            16 => blocks::<Avx2, 6, 2>(input, weight, in_rows, out_rows, output),
            8 => blocks::<Avx2, 8, 1>(input, weight, in_rows, out_rows, output),
            width => unreachable!("blocks of {width} columns are never made"),
        }
    }
}

/// # Safety
/// As `Products::all`, on a processor with these features.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub(super) unsafe fn add_outer_products_avx512(products: Products<'_>, sums: &mut [f32]) {
    let stride = products.right.stride;
    let (by_two, by_one) = (stride / 32 * 32, stride / 16 * 16);
    // SAFETY: the caller's.
    unsafe {
        products.columns::<Avx512, 8, 2>(sums, 0..by_two);
        products.columns::<Avx512, 8, 1>(sums, by_two..by_one);
        products.columns::<Avx2, 8, 1>(sums, by_one..stride);
    }
}

/// # Safety
/// As `Products::all`, on a processor with these features.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn add_outer_products_avx2(products: Products<'_>, sums: &mut [f32]) {
    // SAFETY: the caller's.
    unsafe { products.all::<Avx2, 8, 1>(sums) }
}

impl Lanes for Avx512 {
    const N: usize = 16;
    type V = __m512;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m512) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, sum: __m512) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_fmadd_ps(a, b, sum) }
    }
}

impl Lanes for Avx2 {
    const N: usize = 8;
    type V = __m256;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m256) {
        // SAFETY: the caller's.
        unsafe { _mm256_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, sum: __m256) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_fmadd_ps(a, b, sum) }
    }
}

//! Sparse kernel layouts from shapes alone.

use pivotal::import::spconv::{SparseLayout, detect, to_spconv2};
use pivotal::model::params::Weights;
use tch::{Device, Kind, Tensor};

fn weights(shapes: &[(&str, &[i64])]) -> Weights {
    let tensor = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    shapes.iter().map(|(name, shape)| ((*name).to_owned(), tensor(shape))).collect()
}

#[test]
fn detect_shapes_decide_or_the_error_says_why_not() {
    let spconv1 = "spconv 1.x [k,k,k,in,out]";
    let native = "spconv 2.x native [k,k,k,out,in]";
    type Case<'a> = (&'a [(&'a str, &'a [i64])], Result<Option<SparseLayout>, String>);
    let cases: &[Case<'_>] = &[
        (&[("a.0.weight", &[3, 3])], Ok(None)),
        (&[("a.0.weight", &[16, 3, 3, 3, 5])], Ok(Some(SparseLayout::Spconv2))),
        (&[("a.0.weight", &[3, 3, 3, 5, 16]), ("a.1.running_mean", &[16])], Ok(Some(SparseLayout::Spconv1))),
        (&[("a.0.weight", &[3, 3, 3, 16, 5]), ("a.1.running_mean", &[16])], Ok(Some(SparseLayout::Spconv2Native))),
        // A square layer says nothing, the one with a bias does.
        (
            &[
                ("a.conv1.weight", &[3, 3, 3, 8, 8]),
                ("a.bn1.running_mean", &[8]),
                ("b.weight", &[3, 1, 1, 8, 4]),
                ("b.bias", &[4]),
            ],
            Ok(Some(SparseLayout::Spconv1)),
        ),
        // Three output channels look like taps; the norm settles it.
        (&[("a.0.weight", &[3, 3, 3, 3, 16]), ("a.1.running_mean", &[16])], Ok(Some(SparseLayout::Spconv1))),
        (
            &[("a.0.weight", &[3, 3, 3, 5, 16])],
            Err(format!("the 1 sparse kernels fit more than one layout: {spconv1}, {native}; nothing in the file decides")),
        ),
        (
            &[("a.0.weight", &[3, 3, 3, 8, 8]), ("a.1.running_mean", &[8])],
            Err(format!("the 1 sparse kernels fit more than one layout: {spconv1}, {native}; nothing in the file decides")),
        ),
        (
            &[("a.0.weight", &[16, 3, 3, 3, 5]), ("b.0.weight", &[3, 3, 3, 16, 32]), ("b.1.running_mean", &[32])],
            Err("sparse kernel `b.0.weight` [3, 3, 3, 16, 32] (output channels 32) fits none of: spconv 2.x [out,k,k,k,in]"
                .to_owned()),
        ),
        (
            &[("a.0.weight", &[16, 4, 3, 3, 5])],
            Err(format!(
                "sparse kernel `a.0.weight` [16, 4, 3, 3, 5] (output channels unknown) fits none of: {spconv1}, spconv 2.x [out,k,k,k,in], {native}"
            )),
        ),
    ];
    for (shapes, wanted) in cases {
        assert_eq!(detect(&weights(shapes)).map_err(|error| error.to_string()), *wanted, "{shapes:?}");
    }
}

#[test]
fn to_spconv2_every_layout_gives_the_same_kernel() {
    let kernel = Tensor::arange(4 * 27 * 2, (Kind::Float, Device::Cpu)).reshape([4, 3, 3, 3, 2]);
    for (layout, axes) in [
        (SparseLayout::Spconv1, [1, 2, 3, 4, 0]),
        (SparseLayout::Spconv2Native, [1, 2, 3, 0, 4]),
        (SparseLayout::Spconv2, [0, 1, 2, 3, 4]),
    ] {
        let stored = Weights::from([("k".to_owned(), kernel.permute(axes).contiguous())]);
        assert_eq!(to_spconv2(stored, layout)["k"], kernel, "{layout}");
    }
}

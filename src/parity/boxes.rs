//! Overlaps and suppression of the golden box set.

use tch::{Kind, Tensor};

use super::compare::{Limit, compare, exact};
use super::golden::Golden;
use super::{Case, ParityError};
use crate::geometry::{Box3d, iou};
use crate::model::spec::NmsSpec;
use crate::postprocess::{Detection, suppress};
use crate::train::anchor_targets::nearest_bev_iou;

/// Boxes taken into account when a list of kept boxes does not say otherwise.
const ALL: usize = 4096;

pub fn run(golden: &Golden, case: &mut Case) -> Result<(), ParityError> {
    let rows = Vec::<f64>::try_from(golden.get("boxes")?.to_kind(Kind::Double).view([-1]))?;
    let boxes: Vec<Box3d> = rows.chunks_exact(7).filter_map(|row| Some(Box3d::from_row(row.try_into().ok()?))).collect();
    let pairwise = |of: fn(&Box3d, &Box3d) -> f64| {
        let values: Vec<f64> = boxes.iter().flat_map(|a| boxes.iter().map(move |b| of(a, b))).collect();
        Tensor::from_slice(&values).view([boxes.len() as i64, -1])
    };
    // The reference's 1 cm rule, and true geometry. Ratios of overlaps are held to the overlap's own tolerance.
    let overlap = Limit::Abs(1e-4);
    case.stages.push(compare("bev_overlap", &pairwise(iou::reference::bev_overlap), golden.get("bev_overlap")?, overlap));
    let exact_geometry = golden.get("bev_overlap_exact_geometry")?;
    case.stages.push(compare("bev_overlap_exact_geometry", &pairwise(iou::bev_overlap), exact_geometry, overlap));
    case.stages.push(compare("bev_iou", &pairwise(iou::reference::bev_iou), golden.get("bev_iou")?, overlap));
    case.stages.push(compare("iou3d", &pairwise(iou::reference::iou3d), golden.get("iou3d")?, overlap));

    let rows = Vec::<f32>::try_from(golden.get("boxes")?.reshape([-1]))?;
    let (rows, _) = rows.as_chunks::<7>();
    let nearest: Vec<f32> = rows.iter().flat_map(|a| rows.iter().map(move |b| nearest_bev_iou(a, b))).collect();
    let nearest = Tensor::from_slice(&nearest).view([rows.len() as i64, -1]);
    case.stages.push(compare("nearest_bev_iou", &nearest, golden.get("nearest_bev_iou")?, Limit::Abs(1e-5)));

    let scores = Vec::<f32>::try_from(golden.get("scores")?)?;
    let lists: Vec<String> = golden.names().filter(|name| name.starts_with("nms_keep_thr")).map(str::to_owned).collect();
    for list in lists {
        let bad = || golden.content_error(&list, "is not of the form nms_keep_thr<iou>[_pre<n>]");
        let settings = list.trim_start_matches("nms_keep_thr");
        let (threshold, max_before) = match settings.split_once("_pre") {
            Some((threshold, digits)) => (threshold, digits.parse().map_err(|_| bad())?),
            None => (settings, ALL),
        };
        let nms = NmsSpec::Rotated { iou: threshold.parse().map_err(|_| bad())?, max_before, max_after: ALL };
        // The index of a box rides along as its class: suppression ignores classes.
        let detections = boxes.iter().zip(&scores).enumerate();
        let detections =
            detections.map(|(idx, (box3d, score))| Detection { box3d: *box3d, score: *score, class_idx: idx }).collect();
        let kept: Vec<i64> = suppress(detections, &nms).iter().map(|d| d.class_idx as i64).collect();
        let expected = Vec::<i64>::try_from(golden.get(&list)?.to_kind(Kind::Int64))?;
        case.stages.push(exact(&list, &kept, &expected));
    }
    Ok(())
}

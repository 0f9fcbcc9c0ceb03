//! Bird's-eye pictures: right pixels at known places, and no input that stops them.

use pivotal::cloud::{Feature, PointCloud};
use pivotal::geometry::Box3d;
use pivotal::postprocess::Detection;
use pivotal::viz::{BirdseyeOptions, BoxText, ColourBy, Scene, Theme, View, encode_png, render_birdseye, value_span};
use tiny_skia::Pixmap;

/// Rows above the map.
const HEADER_PX: u32 = 54;
const GROUND: [u8; 3] = [10, 13, 20];
/// Of the first and second class in the dark theme.
const CLASSES: [[u8; 3]; 2] = [[255, 158, 44], [255, 92, 138]];

/// 30 m around the sensor at 10 px per metre: 600 x 600 px, one pixel is 0.1 m.
fn options() -> BirdseyeOptions {
    BirdseyeOptions {
        view: View::around(30.0),
        px_per_m: 10.0,
        theme: Theme::Dark,
        colour_by: ColourBy::Height,
        span: [-2.0, 3.0],
        box_text: BoxText::Score,
    }
}

fn cloud(rows: &[[f32; 4]]) -> PointCloud {
    PointCloud {
        frame_id: "lidar".to_owned(),
        features: vec![Feature::X, Feature::Y, Feature::Z, Feature::Intensity],
        points: rows.concat(),
        ..PointCloud::default()
    }
}

fn detection(row: [f64; 7], class_idx: usize) -> Detection {
    Detection { box3d: Box3d::from_row(row), score: 0.5, class_idx }
}

fn render(cloud: &PointCloud, detections: &[Detection], truth: Option<&[Box3d]>) -> Pixmap {
    let class_names = ["Vehicle", "Pedestrian"].map(str::to_owned);
    render_birdseye(&Scene { title: "frame 1", cloud, detections, class_names: &class_names, truth }, &options()).unwrap()
}

/// Colour at a place of the cloud's frame.
fn colour_at(picture: &Pixmap, x_m: f64, y_m: f64) -> [u8; 3] {
    let pixel = picture.pixel(((30.0 - y_m) * 10.0) as u32, HEADER_PX + ((30.0 - x_m) * 10.0) as u32).unwrap();
    [pixel.red(), pixel.green(), pixel.blue()]
}

fn distance(one: [u8; 3], other: [u8; 3]) -> u32 {
    one.iter().zip(other).map(|(one, other)| u32::from(one.abs_diff(other))).sum()
}

/// The rows of the map alone.
fn map_pixels(picture: &Pixmap) -> Vec<u8> {
    let row_bytes = picture.width() as usize * 4;
    picture.data()[HEADER_PX as usize * row_bytes..][..600 * row_bytes].to_vec()
}

#[test]
fn picture_same_scene_same_bytes() {
    let points = cloud(&[[5.0, 5.0, 0.0, 1.0], [-7.25, 3.125, 1.5, 0.0]]);
    let detections = [detection([12.0, -4.0, 0.0, 4.5, 2.0, 1.6, 0.7], 0), detection([3.0, 9.0, 0.0, 0.8, 0.8, 1.7, -2.0], 1)];
    let first = encode_png(&render(&points, &detections, None)).unwrap();
    assert_eq!(first, encode_png(&render(&points, &detections, None)).unwrap());
    let decoded = Pixmap::decode_png(&first).unwrap();
    assert_eq!(decoded.data(), render(&points, &detections, None).data(), "the file holds the picture");
}

#[test]
fn points_are_drawn_where_they_are_and_higher_is_brighter() {
    let picture = render(&cloud(&[[10.05, 5.05, -2.0, 0.0], [10.05, -5.05, 3.0, 0.0], [200.0, 0.0, 0.0, 0.0]]), &[], None);
    let (low, high) = (colour_at(&picture, 10.05, 5.05), colour_at(&picture, 10.05, -5.05));
    assert!(distance(low, GROUND) > 100, "{low:?}");
    assert!(distance(high, GROUND) > distance(low, GROUND) + 150, "{low:?} {high:?}");
    assert_eq!(colour_at(&picture, 10.05, 5.55), GROUND, "half a metre beside the point");
    assert_eq!(colour_at(&picture, -10.05, 5.05), GROUND, "mirrored place");
}

#[test]
fn box_edges_lie_on_its_footprint_in_its_class_colour() {
    // Length 6 along +y (left), width 2 along x: a quarter turn.
    let picture = render(&cloud(&[]), &[detection([10.0, 12.0, 0.0, 6.0, 2.0, 1.5, std::f64::consts::FRAC_PI_2], 1)], None);
    for (x_m, y_m) in [(11.0, 10.5), (9.0, 10.5), (10.45, 9.0), (10.45, 15.0), (11.0, 14.9), (9.0, 9.1)] {
        let colour = colour_at(&picture, x_m, y_m);
        assert!(distance(colour, CLASSES[1]) < 60, "edge at {x_m}, {y_m}: {colour:?}");
    }
    let heading = colour_at(&picture, 10.0, 15.7);
    assert!(distance(heading, CLASSES[1]) < 60, "the heading line reaches beyond the front: {heading:?}");
    assert_eq!(colour_at(&picture, 10.0, 8.3), GROUND, "nothing behind");
    let inside = colour_at(&picture, 10.5, 12.5);
    assert!(inside != GROUND && distance(inside, CLASSES[1]) > 150, "inside only tinted: {inside:?}");
}

#[test]
fn better_box_is_drawn_over_a_weaker_one() {
    let row = [10.0, 12.0, 0.0, 6.0, 2.0, 1.5, 0.0];
    for class_idx in [0, 1] {
        let detections = [detection(row, class_idx), detection(row, 1 - class_idx)];
        let colour = colour_at(&render(&cloud(&[]), &detections, None), 10.5, 13.0);
        assert!(distance(colour, CLASSES[class_idx]) < 60, "{colour:?}");
    }
}

#[test]
fn truth_box_is_drawn_apart_from_detections() {
    let truth = [Box3d::from_row([10.0, 12.0, 0.0, 6.0, 2.0, 1.5, 0.0])];
    let picture = render(&cloud(&[]), &[], Some(&truth));
    let edge: Vec<[u8; 3]> = (70..130).map(|tenth| colour_at(&picture, f64::from(tenth) * 0.1, 13.0)).collect();
    assert!(edge.iter().any(|colour| distance(*colour, GROUND) > 400), "{edge:?}");
    assert!(edge.contains(&GROUND), "dashed: {edge:?}");
    assert_ne!(picture.data(), render(&cloud(&[]), &[], Some(&[])).data());
    assert_eq!(map_pixels(&render(&cloud(&[]), &[], Some(&[]))), map_pixels(&render(&cloud(&[]), &[], None)));
}

#[test]
fn boxes_that_cannot_be_shown_leave_the_map_alone() {
    let empty = map_pixels(&render(&cloud(&[]), &[], None));
    let rows = [
        [f64::NAN, 0.0, 0.0, 4.0, 2.0, 1.5, 0.0],
        [0.0, f64::INFINITY, 0.0, 4.0, 2.0, 1.5, 0.0],
        [0.0, 0.0, 0.0, 1e300, 2.0, 1.5, 0.0],
        [0.0, 0.0, 0.0, 4.0, 2.0, 1.5, f64::NAN],
        [500.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.3],
        [0.0, -1e30, 0.0, 4.0, 2.0, 1.5, 0.3],
    ];
    for row in rows {
        let picture = render(&cloud(&[]), &[detection(row, 0)], Some(&[Box3d::from_row(row)]));
        assert_eq!(map_pixels(&picture), empty, "{row:?}");
    }
    let crossing = render(&cloud(&[]), &[detection([30.5, 0.0, 0.0, 4.0, 2.0, 1.5, 0.0], 99)], None);
    assert_ne!(map_pixels(&crossing), empty, "partly in view, class beyond the names");
}

#[test]
fn extreme_points_and_texts_are_drawn_without_harm() {
    let points = cloud(&[[1e38, -1e38, 1e38, 0.0], [-1e38, 1e38, -1e38, 0.0], [29.99, -29.99, f32::MAX, 0.0], [0.0; 4]]);
    let names = vec!["<script>\u{1F697}\n".repeat(50); 30];
    let title = "frame 1 \u{5730}\u{70B9} ".repeat(100);
    let scene = Scene { title: &title, cloud: &points, detections: &[], class_names: &names, truth: None };
    render_birdseye(&scene, &options()).unwrap();
    let narrow = BirdseyeOptions { view: View { x_m: [100.0, 100.5], y_m: [-0.05, 0.05] }, theme: Theme::Light, ..options() };
    assert_eq!(render_birdseye(&scene, &narrow).unwrap().width(), 480);
}

#[test]
fn options_out_of_bounds_are_refused_with_the_values() {
    let points = PointCloud { features: vec![Feature::X, Feature::Y, Feature::Z], points: vec![0.0; 3], ..PointCloud::default() };
    let scene = Scene { title: "", cloud: &points, detections: &[], class_names: &[], truth: None };
    let cases = [
        (
            BirdseyeOptions { px_per_m: 1e6, ..options() },
            "picture of 60000000 x 60000000 px; each edge must be within 1 and 8192",
        ),
        (BirdseyeOptions { px_per_m: 0.0, ..options() }, "picture of 0 x 0 px"),
        (BirdseyeOptions { px_per_m: f64::NAN, ..options() }, "picture of NaN x NaN px"),
        (BirdseyeOptions { view: View { x_m: [5.0, -5.0], y_m: [-1.0, 1.0] }, ..options() }, "picture of 20 x -100 px"),
        (BirdseyeOptions { span: [3.0, 3.0], ..options() }, "colour span [3, 3]: both ends must be finite"),
        (BirdseyeOptions { span: [f32::NAN, 3.0], ..options() }, "colour span [NaN, 3]"),
        (BirdseyeOptions { colour_by: ColourBy::Intensity, ..options() }, "points have no intensity column, only [X, Y, Z]"),
    ];
    for (options, expected) in cases {
        let message = render_birdseye(&scene, &options).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn span_holds_all_but_the_extreme_values() {
    let hundred: Vec<[f32; 4]> = (0..100).map(|idx| [0.0, 0.0, idx as f32, -(idx as f32)]).collect();
    let cases = [
        (&hundred[..], ColourBy::Height, [2.0, 97.0]),
        (&hundred, ColourBy::Intensity, [-97.0, -2.0]),
        (&[], ColourBy::Height, [0.0, 1.0]),
        (&[[0.0, 0.0, 4.0, 0.0]], ColourBy::Height, [3.5, 4.5]),
        (&[[0.0, 0.0, f32::NAN, 0.0]], ColourBy::Height, [0.0, 1.0]),
    ];
    for (rows, colour_by, expected) in cases {
        assert_eq!(value_span(&cloud(rows), colour_by), expected);
    }
}

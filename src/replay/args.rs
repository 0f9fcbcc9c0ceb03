//! The command line of `detector_node replay`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{PictureOptions, ReplayOptions};
use crate::cloud::Feature;
use crate::cloud::IntensityMode;
use crate::cloud::decode::SensorOverrides;
use crate::pipeline::{PipelineOptions, Precision};
use crate::viz::{ColourBy, Theme};

/// Runs every cloud of a bag through the detector and writes detections, pictures, an HTML page and a file for Foxglove.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ReplayArgs {
    /// rosbag2 folder, or one of its files (.mcap, .db3, also .zstd)
    pub bag: PathBuf,
    /// Model directory
    #[arg(long, short, value_name = "DIR")]
    pub model: PathBuf,
    /// Folder for the results; must be new or empty
    #[arg(long, short, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace an earlier replay in the output folder
    #[arg(long)]
    pub overwrite: bool,
    /// Topic of the clouds; needed when the bag has several
    #[arg(long, value_name = "NAME")]
    pub topic: Option<String>,
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Arithmetic of the convolutions
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    pub precision: PrecisionArg,
    /// Draw every Nth cloud; 0 draws none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub picture_every: u64,
    /// Longer edge of the map in pixels
    #[arg(long, value_name = "PX", default_value_t = 1000)]
    pub picture_px: u32,
    /// Draw this far around the sensor, in metres, instead of the model's range
    #[arg(long, value_name = "M")]
    pub picture_range_m: Option<f64>,
    /// Draw on white
    #[arg(long)]
    pub picture_light: bool,
    /// Colour points by intensity instead of height
    #[arg(long)]
    pub picture_intensity: bool,
    /// Leave out foxglove.mcap, which holds the clouds again
    #[arg(long)]
    pub no_foxglove: bool,
    /// Begin this many seconds after the start of the bag
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    pub start_offset_s: f64,
    /// End this many seconds after the start of the bag
    #[arg(long, value_name = "S")]
    pub end_offset_s: Option<f64>,
    /// End after this many clouds
    #[arg(long, value_name = "N")]
    pub max_frames: Option<u64>,
    /// Leave out boxes with this score or less, as the node's parameter does
    #[arg(long, value_name = "SCORE", default_value_t = 0.0)]
    pub score_threshold: f32,
    /// Drop boxes that overlap a better one by more, instead of what the model's spec says
    #[arg(long, value_name = "IOU")]
    pub nms_iou: Option<f64>,
    /// Compare with the true boxes (vision_msgs/Detection3DArray) of this topic
    #[arg(long, value_name = "NAME")]
    pub ground_truth: Option<String>,
    /// Field that holds the intensity, where no known name is used
    #[arg(long, value_name = "FIELD")]
    pub intensity_field: Option<String>,
    /// Multiply this sensor's intensity by a factor, instead of what the model's spec says
    #[arg(long, value_name = "FACTOR", conflicts_with = "intensity_scale_tanh")]
    pub intensity_scale: Option<f32>,
    /// Take tanh(FACTOR * intensity), instead of what the model's spec says
    #[arg(long, value_name = "FACTOR")]
    pub intensity_scale_tanh: Option<f32>,
}

/// [`Precision`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum PrecisionArg {
    F32,
    Bf16,
}

impl ReplayArgs {
    /// How the model is run.
    pub fn pipeline_options(&self) -> PipelineOptions {
        let precision = match self.precision {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::Bf16 => Precision::Bf16,
        };
        PipelineOptions { device: self.device.clone(), precision }
    }

    /// Everything else; `command_line` is shown on the page.
    pub fn replay_options(&self, command_line: String) -> ReplayOptions {
        let scale = self.intensity_scale.map(IntensityMode::Scale);
        let sensor = SensorOverrides {
            field_names: self.intensity_field.iter().map(|field| (Feature::Intensity, field.clone())).collect(),
            intensity: scale.or(self.intensity_scale_tanh.map(IntensityMode::ScaleTanh)),
        };
        ReplayOptions {
            bag: self.bag.clone(),
            topic: self.topic.clone(),
            sensor,
            out: self.out.clone(),
            overwrite: self.overwrite,
            pictures: PictureOptions {
                every: self.picture_every,
                edge_px: self.picture_px,
                range_m: self.picture_range_m,
                theme: if self.picture_light { Theme::Light } else { Theme::Dark },
                colour_by: if self.picture_intensity { ColourBy::Intensity } else { ColourBy::Height },
            },
            foxglove: !self.no_foxglove,
            start_offset_s: self.start_offset_s,
            end_offset_s: self.end_offset_s,
            max_frames: self.max_frames,
            score_threshold: self.score_threshold,
            truth_topic: self.ground_truth.clone(),
            command_line,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        replay: ReplayArgs,
    }

    fn parse(words: &str) -> Result<ReplayArgs, clap::Error> {
        Cli::try_parse_from(words.split(' ')).map(|cli| cli.replay)
    }

    #[test]
    fn arguments_become_options() {
        let args = parse(
            "replay bag -m model -o out --topic /points --device cuda:1 --precision bf16 --picture-every 5 --picture-px 600 \
             --picture-range-m 40 --picture-light --picture-intensity --no-foxglove --start-offset-s 1.5 --end-offset-s 9 \
             --max-frames 7 --score-threshold 0.4 --nms-iou 0.2 --ground-truth /truth --intensity-field i --intensity-scale-tanh 0.5 --overwrite",
        );
        let args = args.unwrap();
        assert_eq!((args.model.as_path(), args.nms_iou), (Path::new("model"), Some(0.2)));
        assert_eq!(args.pipeline_options(), PipelineOptions { device: "cuda:1".to_owned(), precision: Precision::Bf16 });
        let expected = ReplayOptions {
            bag: PathBuf::from("bag"),
            topic: Some("/points".to_owned()),
            sensor: SensorOverrides {
                field_names: [(Feature::Intensity, "i".to_owned())].into(),
                intensity: Some(IntensityMode::ScaleTanh(0.5)),
            },
            out: PathBuf::from("out"),
            overwrite: true,
            pictures: PictureOptions {
                every: 5,
                edge_px: 600,
                range_m: Some(40.0),
                theme: Theme::Light,
                colour_by: ColourBy::Intensity,
            },
            foxglove: false,
            start_offset_s: 1.5,
            end_offset_s: Some(9.0),
            max_frames: Some(7),
            score_threshold: 0.4,
            truth_topic: Some("/truth".to_owned()),
            command_line: "line".to_owned(),
        };
        assert_eq!(args.replay_options("line".to_owned()), expected);
    }

    #[test]
    fn defaults_replay_everything_and_draw_every_cloud() {
        let args = parse("replay bag --model model --out out").unwrap();
        assert_eq!(args.pipeline_options(), PipelineOptions { device: "auto".to_owned(), precision: Precision::F32 });
        let options = args.replay_options(String::new());
        assert_eq!(options.pictures, PictureOptions::default());
        assert_eq!((options.foxglove, options.overwrite, options.sensor), (true, false, SensorOverrides::default()));
        assert_eq!((options.start_offset_s, options.end_offset_s, options.max_frames), (0.0, None, None));
        assert!(parse("replay bag --model model").is_err(), "without --out");
        assert!(parse("replay bag --model m --out o --intensity-scale 1 --intensity-scale-tanh 1").is_err());
    }
}

//! Colours: cool and quiet for points, warm and bright for boxes, so that boxes stand out.

/// 8-bit red, green, blue.
pub(super) type Rgb = [u8; 3];

/// Overall look of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// Light on near-black, for screens.
    Dark,
    /// Dark on white, for paper.
    Light,
}

/// The colours of one theme.
pub(super) struct Style {
    pub(super) ground: Rgb,
    pub(super) panel: Rgb,
    pub(super) text: Rgb,
    pub(super) faint_text: Rgb,
    pub(super) ring: Rgb,
    pub(super) ego: Rgb,
    pub(super) truth: Rgb,
    /// Point colours from the lower to the upper end of the span.
    ramp: [Rgb; 5],
    classes: [Rgb; 8],
}

const DARK: Style = Style {
    ground: [10, 13, 20],
    panel: [19, 24, 34],
    text: [232, 236, 243],
    faint_text: [147, 158, 176],
    ring: [44, 54, 72],
    ego: [255, 255, 255],
    truth: [236, 240, 245],
    ramp: [[44, 68, 132], [46, 106, 166], [63, 154, 182], [134, 205, 189], [240, 246, 205]],
    classes: [
        [255, 158, 44],
        [255, 92, 138],
        [122, 229, 84],
        [186, 140, 255],
        [255, 224, 80],
        [255, 110, 72],
        [64, 224, 208],
        [240, 150, 230],
    ],
};

const LIGHT: Style = Style {
    ground: [255, 255, 255],
    panel: [242, 244, 248],
    text: [24, 30, 42],
    faint_text: [98, 108, 126],
    ring: [214, 220, 229],
    ego: [20, 24, 34],
    truth: [60, 66, 78],
    ramp: [[176, 192, 216], [126, 158, 200], [74, 120, 176], [38, 78, 136], [14, 34, 82]],
    classes: [
        [222, 108, 0],
        [209, 26, 92],
        [32, 140, 32],
        [112, 60, 200],
        [160, 120, 0],
        [196, 52, 20],
        [0, 130, 130],
        [168, 48, 150],
    ],
};

impl Theme {
    pub(super) fn style(self) -> Style {
        match self {
            Self::Dark => DARK,
            Self::Light => LIGHT,
        }
    }
}

impl Style {
    /// Colour of a class; they repeat after eight.
    pub(super) fn class(&self, class_idx: usize) -> Rgb {
        self.classes[class_idx % self.classes.len()]
    }

    /// Colour of a point, `share` being its place in the span; outside of [0, 1] the ends are used.
    pub(super) fn ramp(&self, share: f32) -> Rgb {
        let place = share.clamp(0.0, 1.0) * (self.ramp.len() - 1) as f32;
        let lower = (place as usize).min(self.ramp.len() - 2);
        let fraction = place - lower as f32;
        std::array::from_fn(|channel| mix(self.ramp[lower][channel], self.ramp[lower + 1][channel], fraction))
    }
}

/// `fraction` of the way from one channel value to another.
pub(super) fn mix(from: u8, to: u8, fraction: f32) -> u8 {
    (f32::from(from) + (f32::from(to) - f32::from(from)) * fraction).round() as u8
}

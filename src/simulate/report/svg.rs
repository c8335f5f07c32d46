//! Axes, scales, lines and bars in SVG. Knows nothing of what they show.

use std::fmt::{Display, Write};

/// The size of a plot; the page scales it.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 100.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 30.0;

/// Where a value stands along an axis.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scale {
    /// From, to.
    Linear(f64, f64),
    /// From, to; both more than 0.
    Decades(f64, f64),
}

/// A plot that is being drawn.
#[derive(Debug)]
pub(super) struct Plot {
    x: Scale,
    y: Scale,
    /// The height of what is within the axes, and that of lanes below it.
    height: f64,
    lanes: f64,
    out: String,
}

impl Scale {
    /// 0 to 1.
    fn share(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear(from, to) => (value - from) / (to - from),
            Self::Decades(from, to) => (value / from).log10() / (to / from).log10(),
        };
        share.clamp(0.0, 1.0)
    }
}

impl Plot {
    /// An empty plot; `what` is for those who cannot see it. Lanes stand
    /// between the plot and the labels of its x-axis.
    pub(super) fn new(what: &str, x: Scale, y: Scale, height: f64, lanes: f64) -> Self {
        let full = TOP + height + lanes + BOTTOM;
        let out = format!(
            "<div class=\"plot\">\n<svg viewBox=\"0 0 {WIDTH} {full}\" role=\"img\" aria-label=\"{}\">\n",
            escaped(what)
        );
        Self {
            x,
            y,
            height,
            lanes,
            out,
        }
    }

    fn at_x(&self, value: f64) -> f64 {
        LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(&self, value: f64) -> f64 {
        TOP + (1.0 - self.y.share(value)) * self.height
    }

    fn bottom(&self) -> f64 {
        TOP + self.height
    }

    fn add(&mut self, element: impl Display) {
        // A string takes everything.
        let _ = writeln!(self.out, "{element}");
    }

    /// A label on the x-axis.
    pub(super) fn x_tick(&mut self, value: f64, label: &str) {
        let (x, y) = (self.at_x(value), self.bottom() + self.lanes);
        let text = y + 18.0;
        self.add(format_args!("<path class=\"grid\" d=\"M{x:.1} {TOP}V{y:.1}\"/><text x=\"{x:.1}\" y=\"{text:.1}\" text-anchor=\"middle\">{label}</text>"));
    }

    /// A label on the y-axis.
    pub(super) fn y_tick(&mut self, value: f64, label: &str) {
        let (y, end, x) = (self.at_y(value), WIDTH - RIGHT, LEFT - 8.0);
        let text = y + 4.0;
        self.add(format_args!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{end}\"/><text x=\"{x}\" y=\"{text:.1}\" text-anchor=\"end\">{label}</text>"));
    }

    /// A line through these points; nothing is drawn to or from a gap.
    pub(super) fn line(&mut self, class: &str, points: impl Iterator<Item = Option<(f64, f64)>>) {
        let mut path = String::new();
        let mut pen = 'M';
        for point in points {
            let Some((x, y)) = point else {
                pen = 'M';
                continue;
            };
            let (x, y) = (self.at_x(x), self.at_y(y));
            // A short line makes a point visible that stands alone.
            let (x, dot) = if pen == 'M' { (x - 1.5, "h3") } else { (x, "") };
            let _ = write!(path, "{pen}{x:.1} {y:.1}{dot}");
            pen = 'L';
        }
        self.add(format_args!("<path class=\"line {class}\" d=\"{path}\"/>"));
    }

    /// A bar between two values of the y-axis.
    pub(super) fn bar(&mut self, class: &str, x: (f64, f64), y: (f64, f64)) {
        let (left, right) = (self.at_x(x.0), self.at_x(x.1));
        let (top, bottom) = (self.at_y(y.1), self.at_y(y.0));
        let (width, height) = ((right - left).max(0.5), (bottom - top).max(0.0));
        self.add(format_args!("<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"));
    }

    /// A bar in a lane below the plot.
    pub(super) fn lane_bar(&mut self, class: &str, lane: f64, x: (f64, f64)) {
        let (left, right) = (self.at_x(x.0), self.at_x(x.1));
        let (y, width) = (self.bottom() + lane + 3.0, (right - left).max(2.0));
        self.add(format_args!(
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"11\"/>"
        ));
    }

    /// What a lane shows.
    pub(super) fn lane_label(&mut self, lane: f64, label: &str) {
        let (x, y) = (LEFT - 8.0, self.bottom() + lane + 12.0);
        self.add(format_args!(
            "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>"
        ));
    }

    /// An upright line over the whole plot, with a label on top, which begins,
    /// ends or has its middle there.
    pub(super) fn upright(
        &mut self,
        class: &str,
        value: f64,
        (anchor, label): (&str, &str),
        says: &str,
    ) {
        let (x, end, text) = (self.at_x(value), self.bottom() + self.lanes, TOP - 8.0);
        self.add(format_args!("<g class=\"{class}\"><title>{says}</title><path d=\"M{x:.1} {TOP}V{end:.1}\"/><text x=\"{x:.1}\" y=\"{text}\" text-anchor=\"{anchor}\">{label}</text></g>", says = escaped(says)));
    }

    /// Says something where the pointer rests on this part of the x-axis.
    pub(super) fn says(&mut self, x: (f64, f64), text: &str) {
        let (left, right) = (self.at_x(x.0), self.at_x(x.1));
        let (width, height) = (right - left, self.height + self.lanes);
        self.add(format_args!("<rect class=\"says\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{}</title></rect>", escaped(text)));
    }

    /// The whole drawing.
    pub(super) fn finish(mut self) -> String {
        let (end, bottom) = (WIDTH - RIGHT, self.bottom());
        self.add(format_args!(
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom:.1}H{end}\"/>"
        ));
        self.out.push_str("</svg>\n</div>");
        self.out
    }
}

/// What colours mean, above a plot.
pub(super) fn legend(entries: &[(&str, &str)]) -> String {
    let mut out = "<p class=\"legend\">".to_owned();
    for (class, label) in entries {
        let _ = write!(out, "<span><i class=\"{class}\"></i>{label}</span>");
    }
    out.push_str("</p>\n");
    out
}

/// Text that is nothing but text.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

//! Draws axes, lines and bars in SVG. Does not know what they show.

use std::fmt::{Display, Write};

/// The width of a plot in its own units; the page scales it.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 100.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 30.0;

/// The scale of an axis: the values at its two ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scale {
    Linear(f64, f64),
    /// Both must be positive.
    Log(f64, f64),
}

/// A plot under construction; later elements cover earlier ones.
#[derive(Debug)]
pub(super) struct Plot {
    x: Scale,
    y: Scale,
    /// The height of the area between the axes.
    height: f64,
    /// The height of all lanes, which are between that area and the labels of
    /// the x-axis.
    lanes_height: f64,
    out: String,
}

impl Scale {
    /// The position of a value along the axis, between 0 and 1.
    fn position(self, value: f64) -> f64 {
        let position = match self {
            Self::Linear(from, to) => (value - from) / (to - from),
            Self::Log(from, to) => (value / from).log10() / (to / from).log10(),
        };
        position.clamp(0.0, 1.0)
    }
}

impl Plot {
    /// Starts an empty plot; screen readers announce its `title`.
    pub(super) fn new(title: &str, x: Scale, y: Scale, height: f64, lanes_height: f64) -> Self {
        let full = TOP + height + lanes_height + BOTTOM;
        let out = format!(
            "<div class=\"plot\">\n<svg viewBox=\"0 0 {WIDTH} {full}\" role=\"img\" aria-label=\"{}\">\n",
            escaped(title)
        );
        Self {
            x,
            y,
            height,
            lanes_height,
            out,
        }
    }

    fn at_x(&self, value: f64) -> f64 {
        LEFT + self.x.position(value) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(&self, value: f64) -> f64 {
        TOP + (1.0 - self.y.position(value)) * self.height
    }

    fn bottom(&self) -> f64 {
        TOP + self.height
    }

    fn add(&mut self, element: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.out, "{element}");
    }

    /// Adds a grid line and its label to the x-axis.
    pub(super) fn x_tick(&mut self, value: f64, label: &str) {
        let (x, y) = (self.at_x(value), self.bottom() + self.lanes_height);
        let text = y + 18.0;
        self.add(format_args!("<path class=\"grid\" d=\"M{x:.1} {TOP}V{y:.1}\"/><text x=\"{x:.1}\" y=\"{text:.1}\" text-anchor=\"middle\">{label}</text>"));
    }

    /// Adds a grid line and its label to the y-axis.
    pub(super) fn y_tick(&mut self, value: f64, label: &str) {
        let (y, end, x) = (self.at_y(value), WIDTH - RIGHT, LEFT - 8.0);
        let text = y + 4.0;
        self.add(format_args!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{end}\"/><text x=\"{x}\" y=\"{text:.1}\" text-anchor=\"end\">{label}</text>"));
    }

    /// Adds a line through the points; `None` interrupts it.
    pub(super) fn line(&mut self, class: &str, points: impl Iterator<Item = Option<(f64, f64)>>) {
        let mut path = String::new();
        let mut pen = 'M';
        for point in points {
            let Some((x, y)) = point else {
                pen = 'M';
                continue;
            };
            let (x, y) = (self.at_x(x), self.at_y(y));
            // A point without neighbours would have no length, so each line starts
            // with a short dash.
            let (x, dash) = if pen == 'M' { (x - 1.5, "h3") } else { (x, "") };
            let _ = write!(path, "{pen}{x:.1} {y:.1}{dash}");
            pen = 'L';
        }
        self.add(format_args!("<path class=\"line {class}\" d=\"{path}\"/>"));
    }

    /// Adds a bar that spans these values of both axes.
    pub(super) fn bar(&mut self, class: &str, x: (f64, f64), y: (f64, f64)) {
        let (left, right) = (self.at_x(x.0), self.at_x(x.1));
        let (top, bottom) = (self.at_y(y.1), self.at_y(y.0));
        let (width, height) = ((right - left).max(0.5), (bottom - top).max(0.0));
        self.add(format_args!("<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"));
    }

    /// Adds a bar to the lane that begins `lane_top` below the x-axis.
    pub(super) fn lane_bar(&mut self, class: &str, lane_top: f64, x: (f64, f64)) {
        let (left, right) = (self.at_x(x.0), self.at_x(x.1));
        let (y, width) = (self.bottom() + lane_top + 3.0, (right - left).max(2.0));
        self.add(format_args!(
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"11\"/>"
        ));
    }

    pub(super) fn lane_label(&mut self, lane_top: f64, label: &str) {
        let (x, y) = (LEFT - 8.0, self.bottom() + lane_top + 12.0);
        self.add(format_args!(
            "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>"
        ));
    }

    /// Adds a vertical line across the whole plot, with a label above it; the
    /// anchor is a value of SVG's `text-anchor`.
    pub(super) fn vertical_line(
        &mut self,
        class: &str,
        value: f64,
        (anchor, label): (&str, &str),
        tooltip: &str,
    ) {
        let (x, end, text) = (
            self.at_x(value),
            self.bottom() + self.lanes_height,
            TOP - 8.0,
        );
        self.add(format_args!("<g class=\"{class}\"><title>{tooltip}</title><path d=\"M{x:.1} {TOP}V{end:.1}\"/><text x=\"{x:.1}\" y=\"{text}\" text-anchor=\"{anchor}\">{label}</text></g>", tooltip = escaped(tooltip)));
    }

    /// Adds a tooltip to this range of the x-axis.
    pub(super) fn tooltip(&mut self, x: (f64, f64), text: &str) {
        let (left, right) = (self.at_x(x.0), self.at_x(x.1));
        let (width, height) = (right - left, self.height + self.lanes_height);
        self.add(format_args!("<rect class=\"tooltip\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{}</title></rect>", escaped(text)));
    }

    /// Draws the axes, and returns the HTML.
    pub(super) fn finish(mut self) -> String {
        let (end, bottom) = (WIDTH - RIGHT, self.bottom());
        self.add(format_args!(
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom:.1}H{end}\"/>"
        ));
        self.out.push_str("</svg>\n</div>");
        self.out
    }
}

/// Explains the classes, and so the colours, of a plot.
pub(super) fn legend(entries: &[(&str, &str)]) -> String {
    let mut out = "<p class=\"legend\">".to_owned();
    for (class, label) in entries {
        let _ = write!(out, "<span><i class=\"{class}\"></i>{label}</span>");
    }
    out.push_str("</p>\n");
    out
}

/// Escapes text for HTML content and attributes.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

//! A plot as an SVG inside a page: its colours, and the values that show under a pointer, are up to the style sheet.

use std::fmt::{self, Write as _};

/// Width and height of the drawing, in its own units; a page scales it to its width.
const SIZE: (f64, f64) = (720.0, 360.0);
/// The room for labels left and below, and the margins right and above.
const ROOM: Room = Room { left: 84.0, below: 40.0, right: 24.0, above: 44.0 };
/// Colours of the style sheet: `c0` and so on.
const COLOURS: usize = 6;
/// The number of intervals between labels that a linear axis aims at.
const INTERVALS: f64 = 5.0;
/// Points of a line that have their values; of longer lines, every second, third and so on has.
const VALUES_MAX: usize = 120;
/// The value that a logarithmic axis shows for zero.
const LOG_MIN: f64 = 1e-3;

/// One line of a plot.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A plot.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

/// One axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) name: &'static str,
    pub(crate) scale: Scale,
}

/// The scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Linear, from 0.
    Linear,
    /// Logarithmic.
    Log,
    /// Percentiles: each further nine takes the same room.
    Nines,
}

impl Axis {
    pub(crate) const fn linear(name: &'static str) -> Self {
        Self { name, scale: Scale::Linear }
    }

    pub(crate) const fn log(name: &'static str) -> Self {
        Self { name, scale: Scale::Log }
    }

    pub(crate) const fn nines(name: &'static str) -> Self {
        Self { name, scale: Scale::Nines }
    }

    fn place(self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(LOG_MIN).log10(),
            Scale::Nines => -(1.0 - value.clamp(0.0, 99.999) / 100.0).log10(),
        }
    }

    fn label(self, place: f64) -> String {
        let value = match self.scale {
            Scale::Linear => place,
            Scale::Log => 10_f64.powf(place),
            Scale::Nines => 100.0 * (1.0 - 10_f64.powf(-place)),
        };
        short(value)
    }

    /// The places that have a label: round values.
    fn ticks(self, range: &std::ops::Range<f64>) -> Vec<f64> {
        let span = range.end - range.start;
        let whole = |step: f64| {
            let first = (range.start / step).ceil();
            let ticks = (0..100_u32).map(move |tick| (first + f64::from(tick)) * step);
            ticks.take_while(|place| *place <= range.end).collect::<Vec<_>>()
        };
        match self.scale {
            Scale::Linear => {
                let power = 10_f64.powf((span / INTERVALS).log10().floor());
                let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
                whole(steps.into_iter().find(|step| span / step <= INTERVALS + 1.0).unwrap_or(span))
            }
            Scale::Nines => whole(1.0),
            Scale::Log if span > 2.5 => whole(1.0),
            // Each decade at 1, 2 and 5.
            Scale::Log => {
                let decades = (0..5_u32).map(|decade| range.start.floor() + f64::from(decade));
                let ticks =
                    decades.flat_map(|decade| [1.0_f64, 2.0, 5.0].map(|digit| decade + digit.log10()));
                ticks.filter(|place| range.contains(place)).collect()
            }
        }
    }

    /// The range that shows all of these places.
    fn range(self, places: impl Iterator<Item = f64> + Clone) -> std::ops::Range<f64> {
        let high = places.clone().fold(f64::NEG_INFINITY, f64::max);
        let low = match self.scale {
            Scale::Linear | Scale::Nines => 0.0,
            Scale::Log => places.fold(f64::INFINITY, f64::min),
        };
        if !high.is_finite() || !low.is_finite() {
            return 0.0..1.0;
        }
        let margin = ((high - low) * 0.05).max(0.05);
        match self.scale {
            Scale::Linear | Scale::Nines => low..high + margin,
            Scale::Log => low - margin..high + margin,
        }
    }
}

impl Plot {
    pub(crate) fn new(title: impl Into<String>, x: Axis, y: Axis, lines: Vec<Line>) -> Self {
        Self { title: title.into(), x, y, lines }
    }

    /// Draws it, with its title, legend and the names of its axes as text of the page.
    pub(crate) fn figure(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let title = escaped(&self.title);
        write!(out, "<figure><h2>{title}</h2>")?;
        if self.lines.len() > 1 {
            out.push_str("<ul class=\"legend\">");
            for (number, line) in self.lines.iter().enumerate() {
                write!(out, "<li class=\"c{}\">{}</li>", number % COLOURS, escaped(&line.name))?;
            }
            out.push_str("</ul>");
        }
        write!(out, "<p class=\"axis\">{}</p>", escaped(self.y.name))?;
        let (width, height) = SIZE;
        writeln!(out, "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">")?;
        let places = || {
            let points = self.lines.iter().flat_map(|line| &line.points);
            points.map(|(x, y)| (self.x.place(*x), self.y.place(*y)))
        };
        let frame =
            Frame { x: self.x.range(places().map(|(x, _)| x)), y: self.y.range(places().map(|(_, y)| y)) };
        self.write_axes(out, &frame)?;
        for (number, line) in self.lines.iter().enumerate() {
            self.write_line(out, &frame, number, line)?;
        }
        write!(out, "</svg><p class=\"axis x\">{}</p></figure>", escaped(self.x.name))
    }

    fn write_axes(&self, out: &mut String, frame: &Frame) -> fmt::Result {
        let (right, bottom) = (SIZE.0 - ROOM.right, SIZE.1 - ROOM.below);
        for place in self.x.ticks(&frame.x) {
            let (x, label) = (frame.across(place), self.x.label(place));
            writeln!(
                out,
                "<path class=\"grid\" d=\"M{x:.1} {}V{bottom}\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                ROOM.above,
                bottom + 28.0,
            )?;
        }
        for place in self.y.ticks(&frame.y) {
            let (y, label) = (frame.down(place), self.y.label(place));
            writeln!(
                out,
                "<path class=\"grid\" d=\"M{} {y:.1}H{right}\"/>\
                 <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                ROOM.left,
                ROOM.left - 8.0,
                y + 6.0,
            )?;
        }
        Ok(())
    }

    fn write_line(&self, out: &mut String, frame: &Frame, number: usize, line: &Line) -> fmt::Result {
        let at = |(x, y): &(f64, f64)| (frame.across(self.x.place(*x)), frame.down(self.y.place(*y)));
        let drawn: Vec<_> = line.points.iter().map(at).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let colour = number % COLOURS;
        writeln!(out, "<polyline class=\"c{colour}\" points=\"{}\"/>", drawn.join(" "))?;
        let every = line.points.len().div_ceil(VALUES_MAX).max(1);
        for point in line.points.iter().step_by(every) {
            let (x, y) = at(point);
            let value = format!("{}: {} at {}", escaped(&line.name), short(point.1), short(point.0));
            // A pointer shows the value above the plot, and so does a tap, which gives the focus.
            writeln!(
                out,
                "<g class=\"point c{colour}\" tabindex=\"0\" role=\"img\" aria-label=\"{value}\">\
                 <circle class=\"near\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"11\"/>\
                 <circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>\
                 <text class=\"value\" x=\"{}\" y=\"26\" text-anchor=\"middle\">{value}</text></g>",
                SIZE.0 / 2.0,
            )?;
        }
        Ok(())
    }
}

/// The room around the lines of a plot.
struct Room {
    left: f64,
    below: f64,
    right: f64,
    above: f64,
}

/// The places that a drawing shows.
struct Frame {
    x: std::ops::Range<f64>,
    y: std::ops::Range<f64>,
}

impl Frame {
    fn across(&self, place: f64) -> f64 {
        let width = SIZE.0 - ROOM.left - ROOM.right;
        ROOM.left + (place - self.x.start) / (self.x.end - self.x.start) * width
    }

    fn down(&self, place: f64) -> f64 {
        let height = SIZE.1 - ROOM.above - ROOM.below;
        SIZE.1 - ROOM.below - (place - self.y.start) / (self.y.end - self.y.start) * height
    }
}

/// A number with three digits or more, and no zeros at its end.
fn short(value: f64) -> String {
    let digits = if (99.0..100.0).contains(&value) {
        3
    } else if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        3
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Text for a page.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_shows_its_lines_and_survives_having_none() {
        let mut plot = Plot {
            title: "a <title>".into(),
            x: Axis::nines("percentile"),
            y: Axis::log("milliseconds"),
            lines: vec![
                Line { name: "one".into(), points: vec![(50.0, 0.0), (99.99, 12.0)] },
                Line { name: "two".into(), points: vec![(50.0, 3.0)] },
            ],
        };
        let figure = plot.figure();
        for part in [
            "a &lt;title&gt;",
            "percentile",
            "milliseconds",
            ">one<",
            ">two<",
            ">99.9<",
            ">one: 12 at 99.99<",
        ] {
            assert!(figure.contains(part), "{part}: {figure}");
        }
        assert_eq!(figure.matches("<polyline").count(), 2);
        assert!(!figure.contains("NaN") && !figure.contains("inf"), "{figure}");
        plot.lines.clear();
        let figure = plot.figure();
        assert!(figure.contains("a &lt;title&gt;") && !figure.contains("NaN"), "{figure}");
    }

    #[test]
    fn labels_are_round_and_few() {
        for (axis, range, expected) in [
            (Axis::linear(""), 0.0..10.3, "0 2 4 6 8 10"),
            (Axis::linear(""), 0.0..0.5, "0 0.1 0.2 0.3 0.4 0.5"),
            (Axis::linear(""), 0.0..1234.0, "0 500 1000"),
            (Axis::log(""), 0.0..2.0, "1 2 5 10 20 50"),
            (Axis::log(""), -1.0..2.0, "0.1 1 10 100"),
            (Axis::nines(""), 0.0..4.05, "0 90 99 99.9 99.99"),
        ] {
            let labels: Vec<_> = axis.ticks(&range).into_iter().map(|place| axis.label(place)).collect();
            assert_eq!(labels.join(" "), expected, "{range:?}");
        }
    }

    #[test]
    fn a_long_line_has_a_bounded_number_of_values() {
        let points = (0..86_400).map(|second| (f64::from(second), 1.0)).collect();
        let lines = vec![Line { name: "day".into(), points }];
        let plot = Plot::new("a day", Axis::linear("s"), Axis::linear("n"), lines);
        let values = plot.figure().matches("class=\"value\"").count();
        assert!((VALUES_MAX / 2..=VALUES_MAX).contains(&values), "{values}");
    }
}

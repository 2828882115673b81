//! A plot as a self-contained SVG.

use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    element::{Circle, PathElement},
    prelude::{IntoDrawingArea as _, RGBColor, SVGBackend},
    series::LineSeries,
    style::{BLACK, Color as _, WHITE},
};

use crate::tools::loadtest::ToolError;

/// Width and height in pixels.
const SIZE: (u32, u32) = (760, 380);
/// Colours that are safe for colour-blind readers (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];
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
        match self.scale {
            // Whole nines only: 0, 90, 99 and so on.
            Scale::Nines if (place - place.round()).abs() > 1e-6 => String::new(),
            Scale::Nines => format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
            Scale::Linear | Scale::Log if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
            Scale::Linear | Scale::Log if value >= 1.0 => format!("{value:.1}"),
            Scale::Linear | Scale::Log => format!("{value:.2}"),
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

    /// Draws it.
    pub(crate) fn svg(&self) -> Result<String, ToolError> {
        let mut svg = String::new();
        self.draw(&mut svg)
            .map_err(|reason| ToolError::Broken(format!("the plot {:?}: {reason}", self.title)))?;
        Ok(svg)
    }

    /// The corner that lines seldom reach: percentiles rise to the right, and other plots have room above.
    fn legend(&self) -> SeriesLabelPosition {
        match self.x.scale {
            Scale::Nines => SeriesLabelPosition::LowerRight,
            Scale::Linear | Scale::Log => SeriesLabelPosition::UpperLeft,
        }
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let lines: Vec<(&str, Vec<(f64, f64)>)> = self
            .lines
            .iter()
            .map(|line| {
                let places = line.points.iter().map(|(x, y)| (self.x.place(*x), self.y.place(*y)));
                (line.name.as_str(), places.collect())
            })
            .collect();
        let places = || lines.iter().flat_map(|(_, places)| places.iter());
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut y = self.y.range(places().map(|(_, y)| *y));
        if self.x.scale != Scale::Nines && lines.len() > 1 {
            // Room for the legend.
            y.end += (y.end - y.start) * 0.35;
        }
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .caption(&self.title, ("sans-serif", 18))
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(self.x.range(places().map(|(x, _)| *x)), y)?;
        chart
            .configure_mesh()
            .x_desc(self.x.name)
            .y_desc(self.y.name)
            .light_line_style(BLACK.mix(0.04))
            .bold_line_style(BLACK.mix(0.12))
            .x_label_formatter(&|place| self.x.label(*place))
            .y_label_formatter(&|place| self.y.label(*place))
            .draw()?;
        for ((name, places), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(places.iter().copied(), colour.stroke_width(2)))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(3)));
            if places.len() < 40 {
                chart.draw_series(places.iter().map(|place| Circle::new(*place, 3, colour.filled())))?;
            }
        }
        if lines.len() > 1 {
            chart
                .configure_series_labels()
                .position(self.legend())
                .background_style(WHITE.mix(0.85))
                .border_style(BLACK.mix(0.2))
                .draw()?;
        }
        root.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_shows_its_lines_and_survives_having_none() {
        let mut plot = Plot {
            title: "a title".into(),
            x: Axis::nines("percentile"),
            y: Axis::log("milliseconds"),
            lines: vec![
                Line { name: "one".into(), points: vec![(50.0, 0.0), (99.99, 12.0)] },
                Line { name: "two".into(), points: vec![(50.0, 3.0)] },
            ],
        };
        let svg = plot.svg().unwrap();
        for part in ["<svg", "a title", "percentile", "milliseconds", "one", "two", "99"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        plot.lines.clear();
        assert!(plot.svg().unwrap().contains("a title"));
    }
}

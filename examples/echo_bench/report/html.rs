//! The page: the table, what it means, and two pictures for each number of connections. One file, nothing loaded.

use crate::flags::Plan;
use crate::measure::Cell;
use crate::report::pictures::{self, Picture};
use crate::report::{self, HEADINGS, MEANINGS, NOISE, deadline_line, disturbance, row, subtitle};
use crate::run::Results;

const STYLE: &str = include_str!("page.css");

pub fn page(plan: &Plan, results: &Results) -> Result<String, String> {
    let mut sections = String::new();
    for &connections in &plan.counts {
        sections += &section(plan, results, connections)?;
    }
    let disturbed = disturbance(results).map_or_else(String::new, |line| {
        format!("<p class=\"disturbed\">{}</p>\n", escaped(&line))
    });
    let subtitle = escaped(&subtitle(plan, results));
    let table = table(&results.cells);
    let meanings = meanings(results);
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>echo_bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>Echo bench</h1>\n{disturbed}<p class=\"subtitle\">{subtitle}</p>\n\
         <div class=\"scroll\">{table}</div>\n{meanings}{sections}</main>\n</body>\n</html>\n"
    ))
}

fn table(cells: &[Cell]) -> String {
    let headings: String = HEADINGS
        .iter()
        .map(|heading| format!("<th>{heading}</th>"))
        .collect();
    let mut text = format!("<table>\n<thead><tr>{headings}</tr></thead>\n<tbody>\n");
    for cell in cells {
        let values: String = row(cell)
            .iter()
            .map(|value| format!("<td>{}</td>", escaped(value)))
            .collect();
        text += &format!("<tr>{values}</tr>\n");
    }
    text + "</tbody>\n</table>"
}

fn meanings(results: &Results) -> String {
    let deadlines = deadline_line(results).map(|line| ("deadlines", line));
    let columns = MEANINGS.map(|(column, meaning)| (column, meaning.to_owned()));
    let all = columns
        .into_iter()
        .chain(deadlines)
        .chain([("noise", NOISE.to_owned())]);
    let items: String = all
        .map(|(column, meaning)| {
            format!(
                "<dt>{}</dt><dd>{}</dd>\n",
                escaped(column),
                escaped(&meaning)
            )
        })
        .collect();
    format!(
        "<details><summary>What the figures mean, and how far to trust them</summary>\n<dl>\n{items}</dl></details>\n"
    )
}

/// One number of connections: all modes of the server in the same two pictures.
fn section(plan: &Plan, results: &Results, connections: usize) -> Result<String, String> {
    let names: Vec<_> = plan.targets.iter().map(|target| target.name()).collect();
    let series = |cell: &Cell| {
        names
            .iter()
            .position(|name| *name == cell.target.name())
            .unwrap_or(0)
    };
    let cells = results
        .cells
        .iter()
        .filter(|cell| cell.connections == connections);
    let cells: Vec<_> = cells.map(|cell| (series(cell), cell)).collect();
    let legend: String = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            format!(
                "<span><i class=\"series-{}\"></i>{}</span>",
                index % 4,
                escaped(name)
            )
        })
        .collect();
    let figure = |title: &str, picture: Picture| {
        let few = picture
            .few_points
            .map_or_else(String::new, |why| format!("<p>{why}</p>\n"));
        format!(
            "<figure><figcaption>{title}</figcaption>\n{}{few}</figure>\n",
            picture.svg
        )
    };
    Ok(format!(
        "<section>\n<h2>{}</h2>\n<p class=\"legend\">{legend}</p>\n<div class=\"pair\">\n{}{}</div>\n</section>\n",
        report::connections(connections),
        figure(
            "Latency, paced at half the rate",
            pictures::latency(&cells)?
        ),
        figure(
            "Throughput, sampled every 100 ms",
            pictures::throughput(&cells)?
        ),
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

//! The report: one page of HTML that needs nothing else, and the same as JSON.
//!
//! The page begins with who wins, in words; then the bars, tables, curves, what exactly was measured, where, and how to run it again.

use std::fmt::Write;

use serde::Serialize;

use super::arms::{Spec, Whose, Wire};
use super::draw;
use super::measure::{Better, Measure, Work, human};
use super::results::Results;
use super::verdict::{Claim, Section, Seen, times};
use crate::bench::compare::{Bar, Comparison, Verdict};
use crate::bench::machine::Machine;
use crate::bench::rounds::Orders;
use crate::bench::stats::{Interval, Spread, ratios};
use crate::fault::Result;

/// Everything there is to tell.
#[derive(Serialize)]
pub struct Report<'r> {
    /// Where.
    pub machine: &'r Machine,
    /// Of load and server.
    pub cpus: [usize; 2],
    /// Figures.
    pub results: &'r Results,
    /// Each port of ours beside the kernel's best.
    pub claims: &'r [Claim],
    /// The same in words.
    pub sections: &'r [Section],
    /// What is missing.
    pub missed: &'r [String],
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222;background:#fff}\
    h1{font-size:1.6em}h2{margin-top:2em;border-bottom:1px solid #ccc}table{border-collapse:collapse;font-size:.86em;display:block;overflow-x:auto}\
    td,th{padding:.25em .6em;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}th{white-space:normal;vertical-align:bottom}td:first-child,th:first-child{text-align:left}\
    table.short{font-size:1em}.words td,.words th{text-align:left;white-space:normal;vertical-align:top}.ours b{color:#0072b2}.kernel b{color:#a35f00}\
    tr.ours td:first-child{color:#0072b2;font-weight:600}.best{font-weight:700;background:#eef6fb}.missed{color:#b00020;font-weight:600}\
    figure{margin:1em 0;overflow-x:auto}svg{max-width:100%;min-width:46em;height:auto}code{background:#f3f3f3;padding:.1em .3em}dt{font-weight:600}small{color:#666}";

impl Report<'_> {
    /// The file of figures.
    pub fn json(&self, orders: &Orders) -> String {
        #[derive(Serialize)]
        struct File<'f> {
            #[serde(flatten)]
            report: &'f Report<'f>,
            orders: &'f Orders,
        }
        serde_json::to_string_pretty(&File { report: self, orders }).expect("numbers and text") + "\n"
    }

    /// The page.
    pub fn html(&self, bars: &[Comparison]) -> Result<String> {
        let mut page = String::new();
        let title = "rxline beside the kernel's sockets";
        let _ = write!(
            page,
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
        );
        self.in_short(&mut page);
        self.first_page(&mut page);
        self.bars(&mut page, bars);
        let _ = write!(
            page,
            "<h2>At a glance</h2><figure>{}</figure>",
            draw::overview(self.results, self.machine)?
        );
        self.figures(&mut page);
        self.curves(&mut page)?;
        let _ = write!(page, "<h2>Figure by figure</h2>");
        for measure in Measure::ALL {
            if let Some(svg) = draw::bars(self.results, measure)? {
                let boundary = capital(measure.kind().boundary);
                let _ = write!(page, "<figure>{svg}</figure><p><small>{}.</small></p>", escape(&boundary));
            }
        }
        self.arms(&mut page);
        self.again(&mut page);
        page += "</body></html>\n";
        Ok(page)
    }

    /// Who wins, for somebody in a hurry: each side's best, where there is a kernel below and where there is none.
    fn in_short(&self, page: &mut String) {
        let places = [
            (true, "over the same veth as the kernel's sockets"),
            (false, "in memory, without a kernel below (memory:, memif:)"),
        ];
        let best = |measure: Measure, veth: bool| {
            let on_veth = |name: &str| self.results.arm(name).is_some_and(|arm| arm.spec.wire == Wire::Veth);
            let claims = self.claims.iter().filter(|claim| claim.measure == measure);
            let there = claims.filter(|claim| on_veth(claim.ours) == veth);
            there.max_by(|a, b| a.advantage().total_cmp(&b.advantage()))
        };
        page.push_str("<h2>In short</h2><ul>");
        for (veth, place) in places {
            let all: Vec<&Claim> =
                Measure::ALL.into_iter().filter_map(|measure| best(measure, veth)).collect();
            if all.is_empty() {
                continue;
            }
            let count = |seen: Seen| all.iter().filter(|claim| claim.seen == seen).count();
            let place = capital(place);
            if count(Seen::TooFew) == all.len() {
                let _ = write!(
                    page,
                    "<li>{place}: too few rounds to tell who wins; the table has what was seen.</li>"
                );
                continue;
            }
            let few = match count(Seen::TooFew) {
                0 => String::new(),
                few => format!(", and {few} were measured too few times to tell"),
            };
            let _ = write!(
                page,
                "<li>{place}: of {} figures rxline's best port wins {}, the kernel's best way wins {}, {} show no difference{few}.</li>",
                all.len(),
                count(Seen::Ours),
                count(Seen::Kernel),
                count(Seen::NoDifference)
            );
        }
        let _ = write!(
            page,
            "</ul><table class=\"short words\"><tr><th>what</th><th>the kernel's best</th><th>rxline {}</th><th>rxline {}</th></tr>",
            places[0].1, places[1].1
        );
        for measure in Measure::ALL {
            let Some(first) = self.claims.iter().find(|claim| claim.measure == measure) else { continue };
            let kind = measure.kind();
            let better = match kind.better {
                Better::More => "more is better",
                Better::Less => "less is better",
            };
            let _ = write!(
                page,
                "<tr><td>{}<br><small>{}, {better}</small></td><td>{}<br><small>{}</small></td>",
                kind.title,
                kind.unit,
                human(first.kernel_median),
                first.kernel.trim_start_matches("kernel: ")
            );
            for (veth, _) in places {
                let Some(claim) = best(measure, veth) else {
                    page.push_str("<td>-</td>");
                    continue;
                };
                let class = match claim.seen {
                    Seen::Ours => "ours",
                    Seen::Kernel => "kernel",
                    Seen::NoDifference | Seen::TooFew => "unsure",
                };
                let (short, median) = (claim.in_short(), human(claim.ours_median));
                let _ = write!(
                    page,
                    "<td class=\"{class}\"><b>{short}</b><br><small>{}&ensp;{median}</small></td>",
                    claim.ours
                );
            }
            page.push_str("</tr>");
        }
        page.push_str("</table>");
    }

    fn first_page(&self, page: &mut String) {
        let rounds = match self.results.pairs {
            1 => "1 round, with".to_string(),
            pairs => format!("{pairs} rounds, each with"),
        };
        let _ = write!(
            page,
            "<h2>How it was compared</h2><p>Every arm serves the same datagrams and the same Rx calls (one protocol core) with the same two CPUs, one for the load and one for \
             the server. {rounds} every arm in random order. What is compared is the median over the rounds of the ratio of our figure \
             to that of <em>the kernel's best way in this run</em>, with its 95 % bootstrap interval. Kernel arms and af_packet:, af_xdp: and \
             dpdk:net_af_packet run over a veth; memory: and memif: have no kernel below them, which is the point of them. GSO and GRO pass many datagrams \
             between one client and one server as if they were one; among many clients they do not. 2.00x is twice the kernel's figure; where less is better, \
             0.50x is half of it, and better.</p>"
        );
        // Where there were too few rounds for everything, nobody won, and nobody is said to.
        let too_few = !self.claims.is_empty() && self.claims.iter().all(|claim| claim.seen == Seen::TooFew);
        for section in self.sections.iter().filter(|section| !(too_few && section.sentences.is_empty())) {
            let _ = write!(page, "<h2>{}</h2>", escape(&section.title));
            match section.sentences.as_slice() {
                [] => page.push_str("<p>Nowhere.</p>"),
                sentences => {
                    let items: String =
                        sentences.iter().map(|text| format!("<li>{}</li>", escape(text))).collect();
                    let _ = write!(page, "<ul>{items}</ul>");
                }
            }
        }
        if !self.missed.is_empty() {
            let items: String = self.missed.iter().map(|text| format!("<li>{}</li>", escape(text))).collect();
            let _ = write!(page, "<h2 class=\"missed\">What is missing</h2><ul>{items}</ul>");
        }
    }

    fn bars(&self, page: &mut String, bars: &[Comparison]) {
        page.push_str(
            "<h2>What has to be reached</h2><table><tr><th>what</th><th>ours</th><th>beside</th><th>judged</th><th>bar</th><th>verdict</th></tr>",
        );
        for bar in bars {
            let median =
                |figures: &[f64]| Spread::of(figures).map_or("-".into(), |spread| human(spread.median));
            let (class, verdict) = match bar.verdict() {
                Verdict::Missed => (" class=\"missed\"", "missed"),
                _ => ("", "met"),
            };
            let limit = match bar.bar {
                Some(Bar::Reaches(rate)) => format!(">= {}", human(rate)),
                bar => bar.map_or(String::new(), |bar| bar.to_string()),
            };
            let judged = match (bar.judgement(), bar.bar) {
                (Some(judged), Some(bar)) if bar.is_absolute() => human(judged),
                (Some(judged), _) => times(judged, None),
                (None, _) => "-".into(),
            };
            let _ = write!(
                page,
                "<tr><td>{} [{}]</td><td>{} ({})</td><td>{} ({})</td><td>{judged}</td><td>{}</td><td{class}>{verdict}</td></tr>",
                bar.what.trim_start_matches("vs-kernel, "),
                bar.unit,
                median(&bar.ours.figures),
                bar.ours.name,
                median(&bar.anchor.figures),
                bar.anchor.name,
                escape(&limit)
            );
        }
        let cycle = Spread::of(&self.results.cycles).map_or("-".into(), |cycle| human(cycle.median));
        let _ = write!(
            page,
            "</table><p><small>Bars in figures (without x) assume that DPDK's buffer cycle in C takes 17 ns. What is judged is what we had come \
             to on such a machine: in these rounds the cycle took {cycle} ns, the median.</small></p>"
        );
    }

    fn figures(&self, page: &mut String) {
        page.push_str("<h2>All figures</h2><p><small>Medians with 95 % intervals; the best of each column is marked.</small></p><table><tr><th>arm</th>");
        for measure in Measure::ALL {
            let kind = measure.kind();
            let _ = write!(page, "<th>{}<br><small>{}</small></th>", kind.title, kind.unit);
        }
        page.push_str("</tr>");
        let best = |measure: Measure| {
            let medians = self.results.arms.iter().filter_map(|arm| arm.median(measure));
            match measure.kind().better {
                Better::More => medians.max_by(f64::total_cmp),
                Better::Less => medians.min_by(f64::total_cmp),
            }
        };
        for arm in &self.results.arms {
            let class = if arm.spec.whose == Whose::Ours { " class=\"ours\"" } else { "" };
            let _ = write!(page, "<tr{class}><td>{}</td>", arm.spec.name);
            for measure in Measure::ALL {
                let Some(summary) = arm.summary(measure, self.results.seed) else {
                    page.push_str("<td>-</td>");
                    continue;
                };
                let class = if best(measure) == Some(summary.spread.median) { " class=\"best\"" } else { "" };
                let interval = summary.interval.map_or(String::new(), |Interval { low, high }| {
                    format!("<br><small>{}<br>to {}</small>", human(low), human(high))
                });
                let _ = write!(page, "<td{class}>{}{interval}</td>", human(summary.spread.median));
            }
            page.push_str("</tr>");
        }
        page.push_str("</table>");
        self.each_to_each(page);
    }

    /// Every port of ours to every way of the kernel's, as the first page has only the kernel's best.
    fn each_to_each(&self, page: &mut String) {
        for measure in [Measure::Echo, Measure::Calls, Measure::RoundTrip] {
            let kind = measure.kind();
            let less = if kind.better == Better::Less { ", less is better" } else { "" };
            let _ = write!(
                page,
                "<h3>{}: ours to each of the kernel's{less}</h3><table><tr><th>ours</th>",
                kind.title
            );
            for kernel in self.results.of(Whose::Kernel) {
                let _ = write!(page, "<th>{}</th>", kernel.spec.name.trim_start_matches("kernel: "));
            }
            page.push_str("</tr>");
            for ours in self.results.of(Whose::Ours) {
                let _ = write!(page, "<tr class=\"ours\"><td>{}</td>", ours.spec.name);
                for kernel in self.results.of(Whose::Kernel) {
                    let (ours, kernel) = self.results.pairs(ours, kernel, measure);
                    let ratios = ratios(&ours, &kernel);
                    let cell = Spread::of(&ratios).map_or("-".into(), |spread| {
                        let told = times(spread.median, Interval::of(&ratios, self.results.seed));
                        told.split_once(", ").map_or(told.clone(), |(ratio, interval)| {
                            format!("{ratio}<br><small>{interval}</small>")
                        })
                    });
                    let _ = write!(page, "<td>{cell}</td>");
                }
                page.push_str("</tr>");
            }
            page.push_str("</table>");
        }
    }

    fn curves(&self, page: &mut String) -> Result {
        page.push_str(
            "<h2>Latency against load</h2><p>Open loop: requests at random times (Poisson), whatever became of those before; latency counts from \
             the <em>intended</em> time of sending. The rates offered are parts of the arm's own rate at saturation in the same round.</p>",
        );
        for work in Work::ALL {
            if let Some(svg) = draw::curves(self.results, work)? {
                let _ = write!(page, "<figure>{svg}</figure>");
            }
            let head = "<table><tr><th>arm</th><th>load</th><th>offered/s</th><th>answered/s</th><th>p50 us</th><th>p99 us</th><th>p99.9 us</th></tr>";
            let _ = write!(page, "<details><summary>{} in figures</summary>{head}", work.title());
            for arm in &self.results.arms {
                for point in arm.curve(work) {
                    let figures = [point.offered, point.answered, point.p50_us, point.p99_us, point.p999_us];
                    let cells: String = figures.map(|figure| format!("<td>{}</td>", human(figure))).concat();
                    let _ = write!(
                        page,
                        "<tr><td>{}</td><td>{:.0} %</td>{cells}</tr>",
                        arm.spec.name,
                        100.0 * point.load
                    );
                }
            }
            page.push_str("</table></details>");
        }
        Ok(())
    }

    fn arms(&self, page: &mut String) {
        page.push_str(
            "<h2>The arms</h2><table class=\"words\"><tr><th>arm</th><th>wire</th><th>server</th><th>idle server</th><th>server CPUs</th><th>load of rates and curves</th>\
             <th>load of round trips and bulk</th></tr>",
        );
        for arm in &self.results.arms {
            let Spec { name, wire, server, wait, serving_cpus, load, same, .. } = *arm.spec;
            let or_pair = |way: &'static str| if way.is_empty() { "memory:, the same process" } else { way };
            let cpus = if serving_cpus > 1 { "both, one shared with the load" } else { "one" };
            let (server, load, same) = (or_pair(server), or_pair(load), or_pair(same));
            let wire = wire.words();
            let _ = write!(
                page,
                "<tr><td>{name}</td><td>{wire}</td><td><code>{server}</code></td><td>{wait}s</td><td>{cpus}</td><td><code>{load}</code></td>\
                 <td><code>{same}</code></td></tr>"
            );
        }
        page.push_str("</table>");
    }

    fn again(&self, page: &mut String) {
        let Machine { cpu, hypervisor, cpus, kernel, memory_kb, load_1min, .. } = self.machine;
        let _ = write!(
            page,
            "<h2>Where, and how to run it again</h2><p>{}, {cpus} CPUs{}, {:.0} GB, kernel {}, load {load_1min:.2} before. Load on CPU {}, servers on \
             CPU {}. Figures of different machines are not to be compared; their ratios may be.</p><p><code>cargo lab bench vs-kernel --pairs {} \
             --seed {} --check --report DIR</code> draws the same orders again.</p>",
            escape(cpu),
            if *hypervisor { " of a virtual machine" } else { "" },
            *memory_kb as f64 / 1e6,
            escape(kernel),
            self.cpus[0],
            self.cpus[1],
            self.results.pairs,
            self.results.seed
        );
    }
}

/// A text that begins a sentence.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Text in HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::results;
    use super::super::verdict::{claims, sections};
    use super::*;

    /// What is made of the report on these results.
    fn reported(results: &Results, missed: &[String], make: impl FnOnce(&Report<'_>) -> String) -> String {
        let (machine, claims) = (Machine::describe(), claims(results));
        let sections = sections(&claims);
        make(&Report {
            machine: &machine,
            cpus: [0, 1],
            results,
            claims: &claims,
            sections: &sections,
            missed,
        })
    }

    #[test]
    fn the_page_needs_nothing_else_and_says_who_wins_first() {
        let results = results(Measure::Echo, &[10.4e6; 5], &[0.52e6; 5], &[0.1e6; 5]);
        let missed = ["vs-kernel: a <fault>".to_string()];
        let html = reported(&results, &missed, |report| report.html(&[]).unwrap());
        let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("no {text:?}"));
        assert!(at("Where rxline wins") < at("<svg") && at("20.0x, 20.0 to 20.0") < at("<svg"));
        assert!(html.contains("a &lt;fault&gt;") && html.contains("--seed 7"));
        assert!(at("In short") < at("Where rxline wins") && html.contains("<b>rxline by 20.0x</b>"));
        assert!(html.contains("of 1 figures rxline's best port wins 1, the kernel's best way wins 0"));
        for outside in ["src=", "href=", "<script", "@import"] {
            assert!(!html.contains(outside), "{outside} in the page");
        }
        let opened = html.matches("<table").count();
        assert_eq!(opened, html.matches("</table>").count());
    }

    #[test]
    fn of_too_few_rounds_it_is_not_said_that_nobody_wins() {
        let results = results(Measure::Echo, &[2.0], &[1.0], &[0.5]);
        let html = reported(&results, &[], |report| report.html(&[]).unwrap());
        assert!(!html.contains("Nowhere") && html.contains("1 round, with every arm"), "{html}");
        assert!(html.contains("too few rounds to tell who wins"), "{html}");
    }

    #[test]
    fn the_file_keeps_every_figure() {
        let results = results(Measure::Echo, &[2.0; 5], &[1.0; 5], &[0.5; 5]);
        let text = reported(&results, &[], |report| report.json(&Orders::default()));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["results"]["arms"][2]["turns"][4]["figures"]["echo"], 2.0);
        assert_eq!(json["claims"][0]["seen"], "ours");
        assert_eq!(json["results"]["seed"], 7);
    }
}

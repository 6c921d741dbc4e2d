//! How rates are shown: as tables of text, and as tables on a terminal's screen. The same cells in both.

use control::snapshot::Counts;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout as Split};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table};

use crate::rates::{CoreRates, EngineRates, PortRates, Rates};
use crate::table::Side::{Left, Right};
use crate::table::{Column, Layout};

const CORES: &[Column] = &[
    ("CORE", Left),
    ("CPU", Right),
    ("TURNS/S", Right),
    ("BUSY%", Right),
    ("SLEEPS/S", Right),
    ("RECEIVED/S", Right),
    ("AT OWNER/S", Right),
    ("HANDED/S", Right),
    ("DELIVERED/S", Right),
    ("CONSUMED/S", Right),
    ("SENT/S", Right),
    ("DROPS/S", Right),
    ("POOL", Right),
    ("OF", Right),
];

const CALLS: &[Column] = &[
    ("CORE", Left),
    ("CALLS", Right),
    ("CALLS/S", Right),
    ("OK/S", Right),
    ("FAILED/S", Right),
    ("RESENT/S", Right),
    ("CONNS", Right),
    ("PEERS", Right),
    ("UNREAD", Right),
];

const PORTS: &[Column] = &[
    ("PORT", Left),
    ("LINK", Left),
    ("RX MPPS", Right),
    ("RX GBIT/S", Right),
    ("TX MPPS", Right),
    ("TX GBIT/S", Right),
    ("DROPS", Left),
];

const DROPS: &[Column] = &[("DROPPED IN THE INTERVAL", Left), ("WHERE", Left), ("COUNT", Right)];

/// A table, ready to be shown.
struct Section {
    columns: &'static [Column],
    rows: Vec<Vec<String>>,
}

/// The line above the tables.
fn headline(rates: &Rates, paused: bool) -> String {
    let Rates { command, pid, uptime_seconds, engines, .. } = rates;
    let sockets: usize = engines.iter().map(|engine| engine.sockets).sum();
    let unread: u64 = engines.iter().flat_map(|engine| &engine.cores).map(|core| core.unread_bytes).sum();
    let paused = if paused { "  PAUSED" } else { "" };
    format!(
        "rxline {command}  pid {pid}  up {uptime_seconds:.0} s  {sockets} sockets  {unread} bytes unread{paused}"
    )
}

/// The line below them: grace periods, retired memory, and who holds them up.
fn rcu_line(rates: &Rates) -> String {
    let rcu = &rates.rcu;
    let mut line = format!(
        "rcu  {} grace periods: p50 {:.1} p99 {:.1} max {:.1} us   {} of {} bytes retired",
        rcu.grace_periods,
        rcu.grace_p50_us,
        rcu.grace_p99_us,
        rcu.grace_max_us,
        rcu.retired_bytes,
        rcu.cap_bytes
    );
    for stall in &rcu.stalls {
        line += &format!("   STALLED by {} for {:.3} s", stall.reader, stall.seconds);
    }
    for past in &rcu.past_stalls {
        line +=
            &format!("   stalled {}x by {}, longest {:.3} s", past.count, past.reader, past.longest_seconds);
    }
    line
}

/// A rate, short: 987, 12.3k, 4.56M.
fn short(rate: f64) -> String {
    match rate {
        r if r >= 1e6 => format!("{:.2}M", r / 1e6),
        r if r >= 1e4 => format!("{:.1}k", r / 1e3),
        r => format!("{r:.0}"),
    }
}

fn core_cells(engine: &EngineRates, core: &CoreRates) -> Vec<String> {
    vec![
        format!("{}/{}", engine.engine, core.core),
        core.cpu.to_string(),
        short(core.turns_per_second),
        format!("{:.1}", core.busy_percent),
        short(core.sleeps_per_second),
        short(core.received_per_second),
        short(core.at_owner_per_second),
        short(core.handed_out_per_second),
        short(core.delivered_per_second),
        short(core.consumed_per_second),
        short(core.sent_per_second),
        short(core.drops_per_second),
        core.buffers_in_use.to_string(),
        core.buffers.to_string(),
    ]
}

fn call_cells(engine: &EngineRates, core: &CoreRates) -> Vec<String> {
    let name = format!("{}/{}", engine.engine, core.core);
    let Some(rx) = &core.rx else { return vec![name, "no answer".into()] };
    vec![
        name,
        rx.calls.to_string(),
        short(rx.calls_per_second),
        short(rx.succeeded_per_second),
        short(rx.failed_per_second),
        short(rx.resent_per_second),
        rx.conns.to_string(),
        rx.peers.to_string(),
        rx.unread_buffers.to_string(),
    ]
}

fn port_cells(port: &PortRates) -> Vec<String> {
    let drops: Vec<String> = port.drops.iter().map(|(name, n)| format!("{name} {n}")).collect();
    vec![
        port.url.clone(),
        if port.up { "up" } else { "down" }.into(),
        format!("{:.3}", port.rx_mpps),
        format!("{:.3}", port.rx_gbps),
        format!("{:.3}", port.tx_mpps),
        format!("{:.3}", port.tx_gbps),
        drops.join(" "),
    ]
}

fn sections(rates: &Rates) -> [Section; 4] {
    let cores =
        || rates.engines.iter().flat_map(|engine| engine.cores.iter().map(move |core| (engine, core)));
    let ports = rates.engines.iter().flat_map(|engine| &engine.ports).map(port_cells);
    let mut drops = Vec::new();
    for (engine, core) in cores() {
        let mut add = |what: &str, counts: &Counts| {
            let name = format!("{}/{}", engine.engine, core.core);
            drops.extend(
                counts.iter().map(|(why, n)| vec![format!("{what}{why}"), name.clone(), n.to_string()]),
            );
        };
        add("", &core.drops);
        add("sending: ", &core.send_drops);
    }
    [
        Section { columns: CORES, rows: cores().map(|(engine, core)| core_cells(engine, core)).collect() },
        Section { columns: CALLS, rows: cores().map(|(engine, core)| call_cells(engine, core)).collect() },
        Section { columns: PORTS, rows: ports.collect() },
        Section { columns: DROPS, rows: drops },
    ]
}

/// As plain text.
pub fn text(rates: &Rates) -> String {
    let mut text = headline(rates, false) + "\n";
    for Section { columns, rows } in sections(rates).into_iter().filter(|section| !section.rows.is_empty()) {
        text += &Layout::new(columns).rows(&rows);
    }
    text + &rcu_line(rates) + "\n\n"
}

/// On a screen.
pub fn draw(frame: &mut Frame<'_>, rates: Option<&Rates>, paused: bool) {
    let keys = Line::from(" q quit   p pause ").dim();
    let Some(rates) = rates else {
        let [line, bottom] =
            Split::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
        frame.render_widget(Paragraph::new("the first interval is being measured"), line);
        frame.render_widget(keys, bottom);
        return;
    };
    let shown: Vec<_> = sections(rates).into_iter().filter(|section| !section.rows.is_empty()).collect();
    let mut heights = vec![Constraint::Length(2)];
    heights.extend(shown.iter().map(|section| Constraint::Max(section.rows.len() as u16 + 2)));
    heights.extend([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]);
    let areas = Split::vertical(heights).split(frame.area());
    frame.render_widget(Line::from(headline(rates, paused)).bold(), areas[0]);
    for (section, area) in shown.iter().zip(&areas[1..]) {
        frame.render_widget(table(section), *area);
    }
    frame.render_widget(Line::from(rcu_line(rates)), areas[shown.len() + 1]);
    frame.render_widget(keys, areas[shown.len() + 3]);
}

fn table(section: &Section) -> Table<'_> {
    let mut layout = Layout::new(section.columns);
    layout.rows(&section.rows);
    let aligned = |cells: Vec<&str>| {
        let cells = cells.into_iter().zip(section.columns).map(|(cell, (_, side))| {
            let line = Line::from(cell.to_string());
            if *side == Right { line.right_aligned() } else { line }
        });
        Row::new(cells.collect::<Vec<_>>())
    };
    let heads = aligned(section.columns.iter().map(|(head, _)| *head).collect());
    let rows = section.rows.iter().map(|row| aligned(row.iter().map(String::as_str).collect()));
    let widths = layout.widths().iter().map(|&width| Constraint::Length(width as u16));
    Table::new(rows, widths.collect::<Vec<_>>())
        .header(heads.style(Style::new().reversed()))
        .column_spacing(2)
}

//! One line for each set of data.

use crate::MIB;
use crate::contenders::Cost;

pub fn report(title: &str, bytes: u64, pairs: &[(Cost, Cost)]) {
    let of = |pick: &dyn Fn(&(Cost, Cost)) -> f64| spread(pairs.iter().map(pick).collect());
    let (peer, ours) = (of(&|pair| pair.0.wall), of(&|pair| pair.1.wall));
    let (peer_cpu, ours_cpu) = (of(&|pair| pair.0.cpu), of(&|pair| pair.1.cpu));
    let wall = of(&|pair| pair.1.wall / pair.0.wall);
    let cpu = of(&|pair| pair.1.cpu / pair.0.cpu);
    let rate = |seconds: f64| bytes as f64 / MIB as f64 / seconds;
    println!(
        "| {title} | {:.2} ({:.2}), {:.0} | {:.2} ({:.2}), {:.0} | {:.2} ({:.2}-{:.2}) | {:.2} |",
        peer.1,
        peer_cpu.1,
        rate(peer.1),
        ours.1,
        ours_cpu.1,
        rate(ours.1),
        wall.1,
        wall.0,
        wall.2,
        cpu.1
    );
}

/// Least, median and most.
pub fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    let median = match values.len() % 2 {
        0 if middle > 0 => f64::midpoint(at(middle - 1), at(middle)),
        _ => at(middle),
    };
    (at(0), median, at(values.len().saturating_sub(1)))
}

//! One line for each set of data.

use crate::MIB;
use crate::cost::Cost;

type Pair = (Cost, Cost);

pub fn report(title: &str, bytes: u64, pairs: &[Pair]) {
    let of = |pick: &dyn Fn(&Pair) -> f64| spread(pairs.iter().map(pick).collect());
    let cost = |side: &dyn Fn(&Pair) -> Cost| {
        let wall = of(&|pair| side(pair).wall).1;
        let cpu = of(&|pair| side(pair).cpu).1;
        let memory = of(&|pair| side(pair).memory).1;
        (wall, format!("{wall:.2} ({cpu:.2}, {memory:.0})"))
    };
    let (peer, ours) = (cost(&|pair| pair.0), cost(&|pair| pair.1));
    let ratio = |value: &dyn Fn(&Cost) -> f64| of(&|pair| value(&pair.1) / value(&pair.0));
    let wall = ratio(&|cost| cost.wall);
    println!(
        "| {title} | {} | {} | {:.0} | {:.2} ({:.2} to {:.2}) | {:.2} | {:.2} |",
        peer.1,
        ours.1,
        bytes as f64 / MIB as f64 / ours.0,
        wall.1,
        wall.0,
        wall.2,
        ratio(&|cost| cost.cpu).1,
        ratio(&|cost| cost.memory).1,
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

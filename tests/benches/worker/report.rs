//! A line for each scene.

use crate::cost::Cost;

/// What a scene cost, with its name.
pub type Played = Vec<(&'static str, Cost)>;

/// Prints medians, and ratios of pairs, as a table of Markdown.
pub fn report(pairs: &[(Played, Played)]) {
    println!(
        "| scene | Python: s (CPU s, MiB) | ours: s (CPU s, MiB) | time, Python / ours (least to most) \
         | CPU, ours / Python | memory, ours / Python |"
    );
    println!("|---|---|---|---|---|---|");
    let names = pairs.first().into_iter().flat_map(|(theirs, _)| theirs);
    for (at, (name, _)) in names.enumerate() {
        let of = |pick: &dyn Fn(&Cost, &Cost) -> f64| {
            let mut values: Vec<f64> = pairs
                .iter()
                .filter_map(|(theirs, ours)| Some(pick(&theirs.get(at)?.1, &ours.get(at)?.1)))
                .collect();
            values.sort_by(f64::total_cmp);
            let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
            let last = values.len().saturating_sub(1);
            let median = f64::midpoint(at(last / 2), at(values.len() / 2));
            [at(0), median, at(last)]
        };
        let [_, theirs, _] = of(&|theirs, _| theirs.wall);
        let [_, ours, _] = of(&|_, ours| ours.wall);
        let [_, their_cpu, _] = of(&|theirs, _| theirs.cpu);
        let [_, our_cpu, _] = of(&|_, ours| ours.cpu);
        let [_, their_memory, _] = of(&|theirs, _| theirs.memory);
        let [_, our_memory, _] = of(&|_, ours| ours.memory);
        let [least, faster, most] = of(&|theirs, ours| theirs.wall / ours.wall);
        let [_, cpu, _] = of(&|theirs, ours| ours.cpu / theirs.cpu);
        let [_, memory, _] = of(&|theirs, ours| ours.memory / theirs.memory);
        println!(
            "| {name} | {theirs:.2} ({their_cpu:.2}, {their_memory:.0}) | {ours:.2} ({our_cpu:.2}, \
             {our_memory:.0}) | {faster:.1} ({least:.1} to {most:.1}) | {cpu:.2} | {memory:.2} |"
        );
    }
}

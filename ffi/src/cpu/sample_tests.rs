//! Tests of sample.rs: the sorted loop as specification, frequencies, ties, biases and what is refused.

use super::*;
use crate::abi::STATUS_PANIC;
use crate::cpu::testing::{Rig, elements};

/// Settings of one row.
#[derive(Clone, Copy)]
struct Row {
    seed: u64,
    sample: i32,
    draw: i32,
    temperature: f32,
    top_k: i32,
    top_p: f32,
}

const ROW: Row = Row { seed: 42, sample: 0, draw: 0, temperature: 1.0, top_k: 0, top_p: 1.0 };

/// Biases of each row.
type Lists<'a> = &'a [&'a [(i32, f32)]];

fn call(rig: &Rig, logits: &[f32], rows: &[Row], biases: Lists) -> (i32, *mut c_void, *mut c_void) {
    let n = rows.len();
    let mut starts = vec![0];
    for list in biases {
        starts.push(starts.last().unwrap() + list.len() as i32);
    }
    let starts = if biases.is_empty() { std::ptr::null_mut() } else { rig.put(&starts) };
    let biases = biases.concat();
    let column = |f: &dyn Fn(&Row) -> f32| rig.put(&rows.iter().map(f).collect::<Vec<f32>>());
    let whole = |f: &dyn Fn(&Row) -> i32| rig.put(&rows.iter().map(f).collect::<Vec<i32>>());
    let (ids, logprobs) = (rig.junk::<i32>(n), rig.junk::<f32>(n));
    let seeds = rig.put(&rows.iter().map(|r| r.seed).collect::<Vec<u64>>());
    let status = unsafe {
        nc_sample(
            rig.ctx(),
            ids,
            logprobs,
            rig.put(logits),
            seeds,
            whole(&|r| r.sample),
            whole(&|r| r.draw),
            column(&|r| r.temperature),
            whole(&|r| r.top_k),
            column(&|r| r.top_p),
            starts,
            rig.put(&biases.iter().map(|&(id, _)| id).collect::<Vec<i32>>()),
            rig.put(&biases.iter().map(|&(_, value)| value).collect::<Vec<f32>>()),
            n as i32,
            (logits.len() / n) as i32,
            biases.len() as i32,
        )
    };
    (status, ids, logprobs)
}

fn sample(rig: &Rig, logits: &[f32], rows: &[Row]) -> (Vec<i32>, Vec<f32>) {
    sample_biased(rig, logits, rows, &[])
}

fn sample_biased(rig: &Rig, logits: &[f32], rows: &[Row], biases: Lists) -> (Vec<i32>, Vec<f32>) {
    let (status, ids, logprobs) = call(rig, logits, rows, biases);
    rig.ok(status);
    (rig.get(ids, rows.len()), rig.get(logprobs, rows.len()))
}

/// The same rule in f64 over sorted lists.
fn plain(logits: &[f32], row: Row) -> usize {
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    ids.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap().then(a.cmp(&b)));
    if row.temperature == 0.0 {
        return ids[0];
    }
    let max = logits[ids[0]];
    let weight = |i: usize| (f64::from(logits[i] - max) / f64::from(row.temperature)).exp();
    if row.top_k > 0 {
        ids.truncate(row.top_k as usize);
    }
    let total: f64 = ids.iter().map(|&i| weight(i)).sum();
    let mut mass = 0.0;
    let kept = ids.iter().position(|&i| {
        mass += weight(i);
        mass >= f64::from(row.top_p) * total
    });
    if row.top_p < 1.0 {
        ids.truncate(kept.unwrap() + 1);
    }
    ids.sort();
    let total: f64 = ids.iter().map(|&i| weight(i)).sum();
    let target = f64::from(uniform(row.seed, row.draw as u32, row.sample as u32)) * total;
    let mut sum = 0.0;
    *ids.iter()
        .find(|&&i| {
            sum += weight(i);
            sum > target
        })
        .unwrap()
}

#[test]
fn sample_matches_the_sorted_loop() {
    let rig = Rig::new(2);
    for V in [1usize, 5, 17, 1000, 1001] {
        let mut rows = vec![];
        for (temperature, top_k, top_p) in
            [(1.0, 0, 1.0), (0.7, 5, 1.0), (1.5, 0, 0.9), (0.5, 10, 0.5), (0.0, 3, 0.3), (2.0, 2000, 0.99)]
        {
            for draw in 0..40 {
                rows.push(Row { draw, sample: draw % 3, temperature, top_k, top_p, ..ROW });
            }
        }
        let ties = V == 1001; // many equal logits
        let logit = |x: &f32| if ties { (x * 6.0).round() } else { x * 6.0 };
        let logits: Vec<f32> = elements::<f32>(V * rows.len(), 1).iter().map(logit).collect();
        let (ids, logprobs) = sample(&rig, &logits, &rows);
        for (r, row) in rows.iter().enumerate() {
            let logits = &logits[r * V..(r + 1) * V];
            assert_eq!(ids[r] as usize, plain(logits, *row), "V {V}, row {r}");
            let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
            let expected = f64::from(logits[ids[r] as usize]) - total.ln();
            assert!((f64::from(logprobs[r]) - expected).abs() < 1e-5, "{} for {expected}", logprobs[r]);
            // Alone, the same bits.
            let (id, logprob) = sample(&rig, logits, &[*row]);
            assert_eq!((id[0], logprob[0].to_bits()), (ids[r], logprobs[r].to_bits()));
        }
    }
}

#[test]
fn sample_breaks_ties_by_the_lowest_id() {
    let rig = Rig::new(1);
    let logits = [1.0, 3.0, 3.0, 0.0, -0.0, 3.0];
    assert_eq!(sample(&rig, &logits, &[Row { temperature: 0.0, ..ROW }]).0, [1]);
    for draw in 0..50 {
        let id = sample(&rig, &logits, &[Row { top_k: 2, draw, ..ROW }]).0[0];
        assert!(id == 1 || id == 2, "top-k 2 gave {id}");
        let id = sample(&rig, &logits, &[Row { top_p: 0.01, draw, ..ROW }]).0[0];
        assert_eq!(id, 1);
    }
}

#[test]
fn sample_draws_with_the_right_frequencies() {
    let rig = Rig::new(2);
    let rows: Vec<Row> = (0..20_000).map(|draw| Row { draw, ..ROW }).collect();
    let logits: Vec<f32> =
        rows.iter().flat_map(|_| [0.1f32.ln(), 0.6f32.ln(), f32::NEG_INFINITY, 0.3f32.ln()]).collect();
    let (ids, _) = sample(&rig, &logits, &rows);
    for (id, expected) in [(0, 0.1), (1, 0.6), (2, 0.0), (3, 0.3)] {
        let share = ids.iter().filter(|&&i| i == id).count() as f64 / rows.len() as f64;
        assert!((share - expected).abs() < 0.015, "id {id}: {share}, expected {expected}");
    }
}

#[test]
fn sample_refuses_what_has_no_answer() {
    let cases: [(&[f32], Row, &str); 5] = [
        (&[0.0, f32::NAN], ROW, "logit 1 is NaN"),
        (&[f32::NEG_INFINITY; 2], ROW, "every logit is -inf"),
        (&[0.0, 1.0], Row { temperature: -1.0, ..ROW }, "temperature -1"),
        (&[0.0, 1.0], Row { top_p: 0.0, ..ROW }, "top-p 0"),
        (&[0.0, 1.0], Row { top_k: -2, ..ROW }, "top-k -2"),
    ];
    for (logits, row, expected) in cases {
        let rig = Rig::new(1);
        let message = rig.fails(call(&rig, logits, &[row], &[]).0, STATUS_PANIC);
        assert!(message.contains(expected), "{message}");
    }
    let biased: [(&[(i32, f32)], &str); 4] = [
        (&[(2, 0.0)], "a bias is of id 2, expected 0 to 1"),
        (&[(-1, 0.0)], "a bias is of id -1"),
        (&[(1, f32::NAN)], "logit 1 is NaN"),
        (&[(0, f32::NEG_INFINITY), (1, f32::NEG_INFINITY)], "every logit is -inf"),
    ];
    for (biases, expected) in biased {
        let rig = Rig::new(1);
        let message = rig.fails(call(&rig, &[0.0, 1.0], &[ROW], &[biases]).0, STATUS_PANIC);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn sample_draws_from_biased_logits_and_scores_the_plain_ones() {
    let rig = Rig::new(2);
    let V = 300;
    let logits: Vec<f32> = elements::<f32>(3 * V, 1).iter().map(|x| x * 6.0).collect();
    let list: Vec<(i32, f32)> = [(7, 4.5), (299, -3.0), (0, 100.0), (7, 1.0)].to_vec();
    for (temperature, top_k, top_p) in [(0.0, 0, 1.0), (1.0, 0, 1.0), (0.8, 9, 1.0), (1.3, 0, 0.8)] {
        for draw in 0..30 {
            let rows = [Row { draw, temperature, top_k, top_p, ..ROW }; 3];
            let (ids, logprobs) = sample_biased(&rig, &logits, &rows, &[&[], &list, &[]]);
            let plainly = sample(&rig, &logits, &rows);
            for row in [0, 2] {
                assert_eq!((ids[row], logprobs[row].to_bits()), (plainly.0[row], plainly.1[row].to_bits()));
            }
            let mut changed = logits[V..2 * V].to_vec();
            list.iter().for_each(|&(id, value)| changed[id as usize] += value);
            assert_eq!(ids[1] as usize, plain(&changed, rows[1]));
            let total: f64 = logits[V..2 * V].iter().map(|&x| f64::from(x).exp()).sum();
            let expected = f64::from(logits[V + ids[1] as usize]) - total.ln();
            assert!((f64::from(logprobs[1]) - expected).abs() < 1e-5, "{} for {expected}", logprobs[1]);
        }
    }
}

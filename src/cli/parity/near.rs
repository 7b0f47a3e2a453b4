//! Arrays compared: the first place where two of them differ, and what simple relation they stand in.

use ndarray::{Array2, ArrayView1, ArrayView2, s};

use crate::registry::manifest::Example;

/// Where two arrays `[n, values]` differ first, row by row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The row.
    pub row: usize,
    /// The value in it.
    pub element: usize,
    /// What should be there.
    pub want: f64,
    /// What is there.
    pub got: f64,
}

/// The first difference beyond the tolerances; both arrays have one shape.
pub fn first(told: &Example, got: &Array2<f64>, want: &Array2<f64>) -> Option<Difference> {
    let pairs = want.indexed_iter().zip(got);
    let ((row, element), want, got) =
        pairs.map(|((at, want), got)| (at, *want, *got)).find(|(_, want, got)| !told.allows(*got, *want))?;
    Some(Difference { row, element, want, got })
}

/// Whether an array is what is wanted.
pub fn fits(told: &Example, got: &Array2<f64>, want: &Array2<f64>) -> bool {
    got.dim() == want.dim() && first(told, got, want).is_none()
}

/// Whether an array is what is wanted where its ends may be others: the last row, rows in which it says nothing (all NaN), and
/// a beginning that settles. At least three rows of four must say something.
pub fn meets(told: &Example, got: &Array2<f64>, want: &Array2<f64>) -> bool {
    let n = want.nrows();
    if got.dim() != want.dim() {
        return false;
    }
    let said: Vec<usize> =
        (0..n.saturating_sub(1)).filter(|&k| got.row(k).iter().any(|x| !x.is_nan())).collect();
    let differs: Vec<usize> =
        said.iter().copied().filter(|&k| !alike(told, got.row(k), want.row(k))).collect();
    said.len() * 4 >= n * 3 && (differs.is_empty() || dies_out(&differs, got, want))
}

/// Whether rows that differ do so near the beginning alone, and less and less.
fn dies_out(differs: &[usize], got: &Array2<f64>, want: &Array2<f64>) -> bool {
    let size = |k: usize| distance(got.slice(s![k..=k, ..]), want.slice(s![k..=k, ..]));
    match (differs.first(), differs.last()) {
        (Some(&first), Some(&last)) => {
            first <= 2 && last * 2 <= want.nrows() && (last == first || size(last) < size(first))
        }
        _ => false,
    }
}

fn alike(told: &Example, got: ArrayView1<'_, f64>, want: ArrayView1<'_, f64>) -> bool {
    got.iter().zip(want).all(|(got, want)| told.allows(*got, *want))
}

/// For each column of `want` the column of `got` that has its values; `None` unless all have one, each another, and not all
/// stand where they should.
pub fn order(told: &Example, got: &Array2<f64>, want: &Array2<f64>) -> Option<Vec<usize>> {
    if got.dim() != want.dim() {
        return None;
    }
    let is = |from: usize, to: usize| alike(told, got.column(from), want.column(to));
    // A column that is where it should be stays there, though another may have the same values.
    let settled: Vec<bool> = (0..want.ncols()).map(|c| is(c, c)).collect();
    let mut free: Vec<usize> = (0..want.ncols()).filter(|c| !settled[*c]).collect();
    if free.is_empty() {
        return None;
    }
    (0..want.ncols())
        .map(|to| match settled[to] {
            true => Some(to),
            false => free.iter().position(|&from| is(from, to)).map(|at| free.remove(at)),
        })
        .collect()
}

/// The power of a thousand by which columns of `want` are larger than those of `got`, and which those are: all others are
/// equal.
pub fn thousands(told: &Example, got: &Array2<f64>, want: &Array2<f64>) -> Option<(i32, Vec<usize>)> {
    if got.dim() != want.dim() {
        return None;
    }
    let off: Vec<usize> =
        (0..want.ncols()).filter(|&c| !alike(told, got.column(c), want.column(c))).collect();
    [3, -3, 6, -6, 9, -9].into_iter().find_map(|power| {
        let factor = 10f64.powi(power);
        // What is small is compared as it would be if it were large.
        let holds = |c: &usize| {
            let pairs = got.column(*c).into_iter().zip(want.column(*c));
            pairs.into_iter().all(|(got, want)| {
                let (got, want) = if power > 0 { (got * factor, *want) } else { (*got, want / factor) };
                told.allows(got, want)
            })
        };
        (!off.is_empty() && off.iter().all(holds)).then(|| (power, off.clone()))
    })
}

/// By how many rows `want` is ahead of `got` (want\[k\] = got\[k + d\]), within three. Rows that never change tell nothing.
pub fn shift(told: &Example, got: &Array2<f64>, want: &Array2<f64>) -> Option<isize> {
    let n = want.nrows();
    if got.dim() != want.dim() || n < 8 || want.rows().into_iter().all(|row| alike(told, row, want.row(0))) {
        return None;
    }
    [1isize, -1, 2, -2, 3, -3].into_iter().find(|&by| {
        (0..n).all(|k| {
            let from = k.checked_add_signed(by).filter(|from| *from < n);
            from.is_none_or(|from| alike(told, got.row(from), want.row(k)))
        })
    })
}

/// The row from which on all agree, where rows differ near the beginning alone, and less and less.
pub fn settles(told: &Example, got: &Array2<f64>, want: &Array2<f64>) -> Option<usize> {
    if got.dim() != want.dim() {
        return None;
    }
    let differs: Vec<usize> = (0..want.nrows()).filter(|&k| !alike(told, got.row(k), want.row(k))).collect();
    dies_out(&differs, got, want).then(|| differs.last().map_or(0, |last| last + 1))
}

/// Sum of squares of the differences, where both are finite.
pub fn distance(got: ArrayView2<'_, f64>, want: ArrayView2<'_, f64>) -> f64 {
    if got.dim() != want.dim() {
        return f64::INFINITY;
    }
    let squares = got.iter().zip(want).map(|(got, want)| (got - want).powi(2));
    squares.filter(|square| square.is_finite()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told() -> Example {
        Example::default()
    }

    fn drawn(rows: usize, columns: usize) -> impl Strategy<Value = Array2<f64>> {
        proptest::collection::vec(-9.0..9.0f64, rows * columns)
            .prop_map(move |values| Array2::from_shape_vec((rows, columns), values).unwrap())
    }

    proptest! {
        #[test]
        fn columns_in_another_order_are_found_and_equal_ones_are_none(
            array in drawn(12, 5), order_of in Just(vec![0usize, 1, 2, 3, 4]).prop_shuffle()
        ) {
            let want = Array2::from_shape_fn(array.dim(), |(r, c)| array[[r, order_of[c]]]);
            let found = order(&told(), &array, &want);
            prop_assert_eq!(found, (order_of != [0, 1, 2, 3, 4]).then_some(order_of));
        }

        #[test]
        fn a_power_of_a_thousand_is_found_in_the_columns_that_have_it(array in drawn(12, 3), power in 1..=3i32) {
            let mut want = array.clone();
            want.column_mut(1).mapv_inplace(|x| x * 10f64.powi(3 * power));
            prop_assert_eq!(thousands(&told(), &array, &want), Some((3 * power, vec![1])));
            prop_assert_eq!(thousands(&told(), &want, &array), Some((-3 * power, vec![1])));
            prop_assert_eq!(thousands(&told(), &array, &array), None);
        }

        #[test]
        fn rows_that_are_ahead_or_behind_are_found(array in drawn(20, 2), by in 1..=3usize) {
            let ahead = Array2::from_shape_fn((20, 2), |(r, c)| array[[(r + by) % 20, c]]);
            prop_assert_eq!(shift(&told(), &array, &ahead), Some(by as isize));
            prop_assert_eq!(shift(&told(), &ahead, &array), Some(-(by as isize)));
        }
    }

    #[test]
    fn a_difference_that_dies_out_is_told_from_one_that_stays() {
        let want = Array2::from_elem((40, 1), 1.0);
        let dying = Array2::from_shape_fn((40, 1), |(k, _)| 1.0 + 0.5f64.powi(k as i32));
        assert_eq!(settles(&told(), &dying, &want), Some(17), "2^-17 is under 1e-5");
        assert_eq!(settles(&told(), &Array2::from_elem((40, 1), 2.0), &want), None);
        assert_eq!(settles(&told(), &want, &want), None);
    }

    #[test]
    fn the_first_difference_is_named_and_nan_is_wanted_only_where_it_is_wanted() {
        let want = ndarray::array![[1.0, f64::NAN], [2.0, 3.0]];
        assert_eq!(first(&told(), &want, &want), None);
        let got = ndarray::array![[1.0, f64::NAN], [2.0, 4.0]];
        let found = Difference { row: 1, element: 1, want: 3.0, got: 4.0 };
        assert_eq!(first(&told(), &got, &want), Some(found));
        assert!(!fits(&told(), &got, &want) && fits(&told(), &got, &got));
        assert!(!told().allows(1.0, f64::INFINITY) && told().allows(f64::INFINITY, f64::INFINITY));
    }

    #[test]
    fn ends_may_be_others_and_the_rest_may_not() {
        let want = Array2::from_shape_fn((12, 1), |(k, _)| k as f64);
        let with = |changes: &[(usize, f64)]| {
            let mut got = want.clone();
            changes.iter().for_each(|(k, value)| got[[*k, 0]] = *value);
            got
        };
        assert!(meets(&told(), &with(&[(0, f64::NAN), (11, 7.0)]), &want));
        assert!(meets(&told(), &with(&[(0, 0.5), (1, 1.1)]), &want), "a beginning that settles");
        assert!(!meets(&told(), &with(&[(0, 0.1), (1, 1.5)]), &want), "one that does not");
        assert!(!meets(&told(), &with(&[(6, 7.0)]), &want));
        assert!(
            !meets(&told(), &Array2::from_elem((12, 1), f64::NAN), &want),
            "who says nothing is not right"
        );
    }
}

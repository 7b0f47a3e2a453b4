//! Rows to batch and back: each row's tensor along its port's batch axis.

use std::time::Instant;

use super::row::{Port, Row};
use crate::domain::tensor::Tensor;

impl Port {
    fn axis(&self) -> Option<usize> {
        self.batch_axis.map(|axis| axis.min(self.row_shape.len()))
    }

    /// Shape of the tensor that holds `rows` rows, as the graph has it.
    pub fn batch_shape(&self, rows: usize) -> Vec<usize> {
        let mut shape = self.row_shape.clone();
        if let Some(axis) = self.axis() {
            shape.insert(axis, rows);
        }
        shape
    }

    fn row_bytes(&self) -> usize {
        self.row_shape.iter().product::<usize>() * self.dtype.size_bytes()
    }

    /// How often the batch axis is walked, and the bytes of one row between two walks.
    fn strides(&self, axis: usize) -> (usize, usize) {
        let outer = self.row_shape[..axis].iter().product();
        let inner = self.row_shape[axis..].iter().product::<usize>() * self.dtype.size_bytes();
        (outer, inner)
    }

    /// Makes `tensor` hold `rows` rows, keeping its buffer. What stood in it is undefined.
    fn shape_batch(&self, tensor: &mut Tensor, rows: usize) {
        tensor.dtype = self.dtype;
        let axis = self.axis();
        if !self.is_batch(tensor, rows) {
            tensor.shape.clear();
            tensor.shape.extend_from_slice(&self.row_shape);
            if let Some(axis) = axis {
                tensor.shape.insert(axis, rows);
            }
        }
        tensor.data.resize(self.row_bytes() * if axis.is_some() { rows } else { 1 });
    }

    /// Whether `tensor` has the dtype and shape of `rows` rows.
    fn is_batch(&self, tensor: &Tensor, rows: usize) -> bool {
        let (shape, row_shape) = (&tensor.shape[..], &self.row_shape[..]);
        tensor.dtype == self.dtype
            && match self.axis() {
                None => shape == row_shape,
                Some(axis) => {
                    shape.len() == row_shape.len() + 1
                        && shape[axis] == rows
                        && shape[..axis] == row_shape[..axis]
                        && shape[axis + 1..] == row_shape[axis..]
                }
            }
    }
}

/// Whether the inputs are those of the ports; else a sentence with tensor, expected, found.
pub(super) fn check(ports: &[Port], inputs: &[Tensor]) -> Result<(), String> {
    if ports.len() != inputs.len() {
        return Err(format!("expected {} inputs, found {}", ports.len(), inputs.len()));
    }
    for (port, tensor) in ports.iter().zip(inputs) {
        if tensor.dtype != port.dtype
            || tensor.shape != port.row_shape
            || tensor.data.bytes().len() != port.row_bytes()
        {
            return Err(format!(
                "{}: expected {} {:?} of a row, found {} {:?} in {} bytes",
                port.name,
                port.dtype,
                port.row_shape,
                tensor.dtype,
                tensor.shape,
                tensor.data.bytes().len()
            ));
        }
    }
    Ok(())
}

/// Whether two rows may share a batch: what is one value for the whole batch must be equal, to the bit.
pub(super) fn may_share(ports: &[Port], one: &Row, other: &Row) -> bool {
    ports.iter().enumerate().filter(|(_, port)| port.batch_axis.is_none()).all(|(i, _)| {
        let (one, other) = (one.inputs[i].data.bytes(), other.inputs[i].data.bytes());
        std::ptr::eq(one, other) || one == other
    })
}

/// Copies the rows into batch tensors of `batch_rows` rows; the last row fills what is left.
///
/// The inputs of every row must have passed `check`; `rows` is not empty and not longer than `batch_rows`.
pub(super) fn gather<R: AsRef<Row>>(ports: &[Port], rows: &[R], batch_rows: usize, batch: &mut Vec<Tensor>) {
    if batch.len() != ports.len() {
        batch.clear();
        batch.extend(ports.iter().map(|port| Tensor::zeros(port.dtype, &port.batch_shape(0))));
    }
    for (i, (port, tensor)) in ports.iter().zip(batch).enumerate() {
        port.shape_batch(tensor, batch_rows);
        let to = tensor.data.bytes_mut();
        let Some(axis) = port.axis() else {
            to.copy_from_slice(rows[0].as_ref().inputs[i].data.bytes());
            continue;
        };
        let (outer, inner) = port.strides(axis);
        if inner == 0 {
            continue;
        }
        for place in 0..batch_rows {
            let from = rows[place.min(rows.len() - 1)].as_ref().inputs[i].data.bytes();
            for (o, piece) in from.chunks_exact(inner).enumerate().take(outer) {
                let at = (o * batch_rows + place) * inner;
                to[at..at + inner].copy_from_slice(piece);
            }
        }
    }
}

/// The rows of whole tensors, in port order, each with `n` rows: `n` rows that are due then. A tensor that is not its
/// port's is a sentence.
pub fn rows_of(ports: &[Port], tensors: &[Tensor], n: usize, due: Instant) -> Result<Vec<Box<Row>>, String> {
    let mut rows: Vec<Box<Row>> = (0..n).map(|_| Box::new(Row::new(Vec::new(), due))).collect();
    scatter(ports, tensors, n, &mut rows)?;
    rows.iter_mut().for_each(|row| row.inputs = std::mem::take(&mut row.outputs));
    Ok(rows)
}

/// The answers of rows as whole tensors, in port order. `rows` is not empty, and all of them were run by these ports.
pub fn outputs_of(ports: &[Port], mut rows: Vec<Box<Row>>) -> Vec<Tensor> {
    rows.iter_mut().for_each(|row| row.inputs = std::mem::take(&mut row.outputs));
    let mut tensors = Vec::new();
    gather(ports, &rows, rows.len(), &mut tensors);
    tensors
}

/// One row's tensor of a port `n` times along its batch axis.
pub fn repeated(port: &Port, row: Tensor, n: usize) -> Tensor {
    let mut tensors = Vec::new();
    let row = Box::new(Row::new(vec![row], Instant::now()));
    gather(std::slice::from_ref(port), &[row], n, &mut tensors);
    tensors.remove(0)
}

/// Copies the batch's outputs back into the rows' own; an output that is not its port's is a sentence.
pub(super) fn scatter<R: AsMut<Row>>(
    ports: &[Port],
    batch: &[Tensor],
    batch_rows: usize,
    rows: &mut [R],
) -> Result<(), String> {
    if ports.len() != batch.len() {
        return Err(format!("expected {} outputs, found {}", ports.len(), batch.len()));
    }
    for (port, tensor) in ports.iter().zip(batch) {
        if !port.is_batch(tensor, batch_rows) {
            return Err(format!(
                "{}: expected {} {:?}, found {} {:?}",
                port.name,
                port.dtype,
                port.batch_shape(batch_rows),
                tensor.dtype,
                tensor.shape
            ));
        }
    }
    for (place, row) in rows.iter_mut().enumerate() {
        let outputs = &mut row.as_mut().outputs;
        if outputs.len() != ports.len() {
            outputs.clear();
            outputs.extend(ports.iter().map(|port| Tensor::zeros(port.dtype, &port.row_shape)));
        }
        for ((port, tensor), output) in ports.iter().zip(batch).zip(outputs) {
            if output.dtype != port.dtype || output.shape != port.row_shape {
                *output = Tensor::zeros(port.dtype, &port.row_shape);
            }
            output.data.resize(port.row_bytes());
            let (from, to) = (tensor.data.bytes(), output.data.bytes_mut());
            let Some(axis) = port.axis() else {
                to.copy_from_slice(from);
                continue;
            };
            let (_, inner) = port.strides(axis);
            if inner == 0 {
                continue;
            }
            for (o, piece) in to.chunks_exact_mut(inner).enumerate() {
                let at = (o * batch_rows + place) * inner;
                piece.copy_from_slice(&from[at..at + inner]);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::domain::tensor::Dtype;

    fn port(row_shape: &[usize], batch_axis: Option<usize>) -> Port {
        Port { name: "x".into(), dtype: Dtype::F32, row_shape: row_shape.to_vec(), batch_axis }
    }

    fn row(shape: &[usize], values: &[f32]) -> Box<Row> {
        Box::new(Row::new(vec![Tensor::from_f32(shape, values)], Instant::now()))
    }

    #[test]
    fn recurrent_state_gathers_along_its_second_axis_and_comes_back() {
        // [layers, B, H] with 2 layers, H = 2
        let ports = [port(&[2, 2], Some(1))];
        let mut rows = [row(&[2, 2], &[1., 2., 3., 4.]), row(&[2, 2], &[5., 6., 7., 8.])];
        let mut batch = Vec::new();
        gather(&ports, &rows, 2, &mut batch);
        assert_eq!(batch[0].shape, [2, 2, 2]);
        assert_eq!(batch[0].values::<f32>(), [1., 2., 5., 6., 3., 4., 7., 8.]);
        scatter(&ports, &batch, 2, &mut rows).expect("what was gathered fits");
        assert_eq!(rows[0].outputs[0].values::<f32>(), [1., 2., 3., 4.]);
        assert_eq!(rows[1].outputs[0].values::<f32>(), [5., 6., 7., 8.]);
    }

    #[test]
    fn an_innermost_batch_axis_gathers_element_by_element() {
        let ports = [port(&[3], Some(1))];
        let mut rows = [row(&[3], &[1., 2., 3.]), row(&[3], &[4., 5., 6.])];
        let mut batch = Vec::new();
        gather(&ports, &rows, 2, &mut batch);
        assert_eq!(batch[0].shape, [3, 2]);
        assert_eq!(batch[0].values::<f32>(), [1., 4., 2., 5., 3., 6.]);
        scatter(&ports, &batch, 2, &mut rows).expect("what was gathered fits");
        assert_eq!(rows[1].outputs[0].values::<f32>(), [4., 5., 6.]);
    }

    #[test]
    fn padding_repeats_the_last_row_and_buffers_shrink_and_grow() {
        let ports = [port(&[1], Some(0))];
        let rows: Vec<_> = (0..3).map(|i| row(&[1], &[i as f32])).collect();
        let mut batch = Vec::new();
        gather(&ports, &rows, 5, &mut batch);
        assert_eq!(batch[0].values::<f32>(), [0., 1., 2., 2., 2.]);
        gather(&ports, &rows[..1], 1, &mut batch);
        assert_eq!(
            (batch[0].shape.as_slice(), batch[0].values::<f32>()),
            ([1, 1].as_slice(), [0.].as_slice())
        );
        gather(&ports, &rows, 3, &mut batch);
        assert_eq!(batch[0].values::<f32>(), [0., 1., 2.]);
    }

    #[test]
    fn whole_tensors_become_rows_and_their_answers_whole_tensors_again() {
        // [2, n, 2]: the batch axis in the middle; and one value for all.
        let ports = [port(&[2, 2], Some(1)), port(&[1], None)];
        let whole: Vec<f32> = (0..12u8).map(f32::from).collect();
        let tensors = [Tensor::from_f32(&[2, 3, 2], &whole), Tensor::from_f32(&[1], &[7.0])];
        let mut rows = rows_of(&ports, &tensors, 3, Instant::now()).expect("they fit");
        assert_eq!(rows[1].inputs[0].values::<f32>(), [2., 3., 8., 9.]);
        assert_eq!(rows[2].inputs[1].values::<f32>(), [7.]);
        rows.iter_mut().for_each(|row| row.outputs = row.inputs.clone());
        assert_eq!(outputs_of(&ports, rows), tensors);
        let row = Tensor::from_f32(&[2, 2], &[1., 2., 3., 4.]);
        assert_eq!(repeated(&ports[0], row, 2).values::<f32>(), [1., 2., 1., 2., 3., 4., 3., 4.]);
        assert!(rows_of(&ports, &tensors, 2, Instant::now()).is_err());
    }

    #[test]
    fn one_value_for_the_whole_batch_is_taken_once_and_given_to_every_row() {
        let ports = [port(&[2], None)];
        let mut rows = [row(&[2], &[1., 2.]), row(&[2], &[1., 2.])];
        assert!(may_share(&ports, &rows[0], &rows[1]));
        assert!(!may_share(&ports, &rows[0], &row(&[2], &[1., 3.])));
        let mut batch = Vec::new();
        gather(&ports, &rows, 2, &mut batch);
        assert_eq!(
            (batch[0].shape.as_slice(), batch[0].values::<f32>()),
            ([2].as_slice(), [1., 2.].as_slice())
        );
        scatter(&ports, &batch, 2, &mut rows).expect("what was gathered fits");
        assert_eq!(rows[1].outputs[0].values::<f32>(), [1., 2.]);
    }

    #[test]
    fn what_does_not_fit_is_a_sentence_with_expected_and_found() {
        let ports = [port(&[2], Some(0))];
        let wrong = row(&[3], &[1., 2., 3.]);
        assert_eq!(
            check(&ports, &wrong.inputs).unwrap_err(),
            "x: expected f32 [2] of a row, found f32 [3] in 12 bytes"
        );
        let short = [Tensor::from_f32(&[1, 2], &[1., 2.])];
        let mut rows = [row(&[2], &[1., 2.]), row(&[2], &[1., 2.])];
        assert_eq!(
            scatter(&ports, &short, 2, &mut rows).unwrap_err(),
            "x: expected f32 [2, 2], found f32 [1, 2]"
        );
    }

    #[test]
    fn a_row_without_elements_passes_through() {
        let ports = [port(&[0], Some(0))];
        let mut rows = [row(&[0], &[])];
        let mut batch = Vec::new();
        gather(&ports, &rows, 1, &mut batch);
        scatter(&ports, &batch, 1, &mut rows).expect("nothing fits nothing");
    }
}

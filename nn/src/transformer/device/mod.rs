//! The same models over plain operations of burn, on any of its devices: what trains on a GPU.
//!
//! The frozen base lies on the device in bf16 or f32; norms, attention, updates and loss are in f32, products in the type
//! of the base, which adds up wider. The mathematics is that of the `*_plain` bodies of [`crate::ops`], the references of
//! the CPU's kernels, so that every test of a kernel is one of this path too.
//!
//! The tape is cut where it would cost memory: each block is gone back through alone ([`block`]), attention has its gradient
//! by formula and block by block of queries, and logits exist for a chunk of rows at a time.
//!
//! A micro-batch moves the parameters to the device and their gradient back, 4 bytes each, beside the token vectors of its rows and
//! a few numbers a row: the optimizer stays on the host, where adapters and checkpoints are the same for every device.

mod block;
mod greedy;
mod model;

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use espalier_kernels::Precision;
use espalier_kernels::ops::RopeTable;
use espalier_model::{Model, ModelConfig, NormPlacement};

pub use self::model::DeviceModel;
use super::frozen::{BaseWeights, Product, Reader, TokenVectors, head, products, token_vectors};
use crate::error::NnError;
use crate::ops::self_attention::{AttentionPlan, HeadWeights};

/// Rows of a micro-batch are filled up to a multiple of so many, with rows of their own sequence that nothing is learned
/// from: a device tunes its kernels once for each shape that it meets.
const ROW_MULTIPLE: usize = 256;

/// A frozen product on the device.
#[derive(Debug)]
struct Dense {
    /// `[outputs, inputs]` in the precision of the base.
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
}

/// The frozen parts of a layer.
#[derive(Debug)]
struct DeviceLayer {
    attention_norm: Tensor<1>,
    feed_forward_norm: Tensor<1>,
    norms_behind: Option<[Tensor<1>; 2]>,
    /// q k v side by side; the projection behind attention; gate and up side by side; the projection back.
    products: [Dense; 4],
    attention: AttentionPlan,
    head_norms: Option<HeadWeights>,
    /// Which of the model's tables turns it.
    table: Option<usize>,
    /// Which of the model's windows it has.
    window: usize,
}

/// A base model whose weights never change, on a device of burn.
#[derive(Debug)]
pub struct DeviceTransformer {
    /// Sizes and constants.
    pub config: ModelConfig,
    /// Type of the frozen weights and of the products.
    pub precision: Precision,
    /// Positions that the rotation knows: the longest sequence.
    pub positions: usize,
    device: Device,
    /// They stay on the host, which reads those of the tokens at hand from the file.
    embedding: TokenVectors,
    layers: Vec<DeviceLayer>,
    tables: Vec<Arc<RopeTable>>,
    windows: Vec<Option<usize>>,
    output_norm: Tensor<1>,
    head: Tensor<2>,
    row_multiple: usize,
}

/// Where `value` stands among those that are known; at their end if it is not known yet.
fn place<T>(known: &mut Vec<T>, value: T, same: impl Fn(&T, &T) -> bool) -> usize {
    known.iter().position(|other| same(other, &value)).unwrap_or_else(|| {
        known.push(value);
        known.len() - 1
    })
}

impl DeviceTransformer {
    /// Takes every weight of `model` to `device`; `positions` bounds the length of a sequence. The host holds one product at
    /// a time.
    ///
    /// # Errors
    /// Tensors that are missing, damaged or of another shape than the configuration says; a device without the type.
    pub fn load(model: &Model, precision: Precision, positions: usize, device: &Device) -> Result<Self, NnError> {
        let config = model.config().clone();
        if !device.supports_dtype(data_type(precision)) {
            return Err(NnError::OnDevice(format!(
                "it does not compute in {precision}: write precision: {}",
                if precision == Precision::Bf16 { Precision::F32 } else { Precision::Bf16 }
            )));
        }
        let reader = Reader { model, precision, base_weights: BaseWeights::Packed };
        let (mut tables, mut windows) = (Vec::new(), Vec::new());
        let mut layers = Vec::with_capacity(config.layers);
        for (number, rope) in model.rope_tables(positions)?.into_iter().enumerate() {
            let table = rope.clone().map(|rope| place(&mut tables, rope, Arc::ptr_eq));
            let attention = reader.attention(number, rope)?;
            let window = place(&mut windows, attention.shape.window, PartialEq::eq);
            layers.push(layer(&reader, &config, number, attention, (table, window), device)?);
        }
        let output_norm = reader.output_norm()?;
        Ok(Self {
            embedding: token_vectors(&model.tensor("token_embd.weight")?)?,
            layers,
            tables,
            windows,
            output_norm: Tensor::from_floats(output_norm.as_slice(), device),
            head: dense(&reader, &head(&config), device)?.weight,
            device: device.clone(),
            positions,
            precision,
            row_multiple: ROW_MULTIPLE,
            config,
        })
    }

    /// The same with micro-batches that are filled up to a multiple of `rows`; 1 leaves them as they are. Results differ by
    /// no more than the shapes of products make them.
    #[must_use]
    pub fn with_row_multiple(mut self, rows: usize) -> Self {
        self.row_multiple = rows.max(1);
        self
    }

    /// Memory of the weights on the device.
    pub fn bytes(&self) -> usize {
        let weight = |weight: &Tensor<2>| weight.shape().num_elements() * bytes_of(self.precision);
        let products = self.layers.iter().flat_map(|layer| &layer.products);
        products.map(|product| weight(&product.weight)).sum::<usize>() + weight(&self.head)
    }

    /// What [`DeviceTransformer::bytes`] will be.
    pub fn planned_bytes(config: &ModelConfig, precision: Precision) -> usize {
        let size = |product: &Product| product.inputs * product.parts.iter().map(|(_, outputs)| outputs).sum::<usize>();
        let layers = (0..config.layers).flat_map(|layer| products(config, layer));
        bytes_of(precision) * (layers.map(|product| size(&product)).sum::<usize>() + size(&head(config)))
    }
}

fn data_type(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    }
}

/// Bytes of a weight.
fn bytes_of(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 4,
        Precision::Bf16 => 2,
    }
}

fn layer(
    reader: &Reader<'_>,
    config: &ModelConfig,
    number: usize,
    attention: AttentionPlan,
    (table, window): (Option<usize>, usize),
    device: &Device,
) -> Result<DeviceLayer, NnError> {
    let norm = |part: &str| -> Result<Tensor<1>, NnError> {
        let weight = reader.vector(&format!("blk.{number}.{part}.weight"), config.hidden)?;
        Ok(Tensor::from_floats(weight.as_slice(), device))
    };
    let [qkv, output, gate_up, down] = products(config, number);
    let product = |product: &Product| dense(reader, product, device);
    Ok(DeviceLayer {
        attention_norm: norm("attn_norm")?,
        feed_forward_norm: norm("ffn_norm")?,
        norms_behind: match config.norms {
            NormPlacement::Before => None,
            NormPlacement::BeforeAndAfter => Some([norm("post_attention_norm")?, norm("post_ffw_norm")?]),
        },
        products: [product(&qkv)?, product(&output)?, product(&gate_up)?, product(&down)?],
        head_norms: attention.head_norms.as_ref().map(|norms| HeadWeights::of(norms, device)),
        attention,
        table,
        window,
    })
}

/// The matrices of a product as one on the device, with their biases.
fn dense(reader: &Reader<'_>, product: &Product, device: &Device) -> Result<Dense, NnError> {
    let (tensors, outputs) = reader.tensors(product)?;
    let mut values = Vec::with_capacity(outputs * product.inputs);
    for (_, tensor) in &tensors {
        values.extend(tensor.to_vec()?);
        tensor.release();
    }
    let bias = reader.bias(product, &tensors, outputs)?;
    let data = TensorData::new(values, [outputs, product.inputs]);
    Ok(Dense {
        weight: Tensor::from_data(data, (device, data_type(reader.precision))),
        bias: bias.map(|bias| Tensor::from_floats(bias.as_slice(), device)),
    })
}

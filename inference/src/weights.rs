//! A model's weights in the form that the forward pass reads.

use std::sync::{Arc, Mutex};

use espalier_kernels::ops::{AttentionShape, PageElement, RopeStyle, RopeTable};
use espalier_kernels::{Accumulate, BlockRows, LowRank, PackedMatrix, Precision, Values, ValuesMut, matmul_low_rank};
use espalier_model::{LoraAdapter, Model, ModelConfig, ModelError, NormPlacement, Tensor, TensorInfo};
use rayon::prelude::*;

use crate::branch::{AdaptedRows, Branches};
use crate::error::EngineError;
use crate::matrix::{Matrix, ProductMemory, WeightForm};

/// Changes a row of a matrix as it is read: what the tensor is, which row, its values.
pub type ChangeRow<'a> = dyn Fn(&TensorInfo, usize, &mut [f32]) + Sync + 'a;

/// A frozen matrix with the side branches of adapters.
pub(crate) struct Projection {
    matrix: Matrix,
    /// For each adapter.
    branches: Vec<Option<LowRank>>,
}

impl Projection {
    /// `y (=|+=) x W^T + (x A^T) B^T` for `m` rows, each with the branch of its adapter. The matrix is read once for all of
    /// them, and the bits of a row are the same whatever its neighbours.
    pub(crate) fn apply(
        &self,
        x: Values<'_>,
        m: usize,
        y: &mut [f32],
        memory: &mut ProductMemory,
        accumulate: Accumulate,
    ) {
        let ProductMemory { adapted: AdaptedRows { runs, low }, rounded } = memory;
        let branch = |adapter: Option<usize>| adapter.and_then(|adapter| self.branches[adapter].as_ref());
        if let Matrix::Packed(matrix) = &self.matrix
            && let [(adapter, _)] = runs.as_slice()
            && let Some(branch) = branch(*adapter)
        {
            low.resize(m * branch.rank(), 0.0);
            return matmul_low_rank(x, m, matrix, branch, low, ValuesMut::F32(y), accumulate);
        }
        self.matrix.apply(x, m, ValuesMut::F32(&mut *y), rounded, accumulate);
        let (inputs, outputs) = (self.matrix.columns(), self.matrix.rows());
        for (adapter, rows) in runs.iter() {
            if let Some(branch) = branch(*adapter) {
                let x = match x {
                    Values::F32(x) => Values::F32(&x[rows.start * inputs..rows.end * inputs]),
                    Values::Bf16(x) => Values::Bf16(&x[rows.start * inputs..rows.end * inputs]),
                };
                low.resize(rows.len() * branch.rank(), 0.0);
                branch.add(x, rows.len(), low, &mut y[rows.start * outputs..rows.end * outputs]);
            }
        }
    }

    fn bytes(&self) -> usize {
        self.matrix.bytes() + self.branches.iter().flatten().map(LowRank::bytes).sum::<usize>()
    }
}

/// One transformer block.
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    /// q, k and v, one below the other.
    pub(crate) qkv: Projection,
    /// Biases of q, k and v, one after the other.
    pub(crate) qkv_bias: Option<Vec<f32>>,
    /// Weights of the norms of each head of q and of k.
    pub(crate) head_norms: Option<[Vec<f32>; 2]>,
    /// Heads, scale and window.
    pub(crate) attention: AttentionShape,
    /// Angles by position, in a layer that is rotated.
    pub(crate) rope: Option<Arc<RopeTable>>,
    pub(crate) output: Projection,
    /// Weight of the norm behind attention.
    pub(crate) output_norm: Option<Vec<f32>>,
    pub(crate) mlp_norm: Vec<f32>,
    /// gate and up, one below the other.
    pub(crate) gate_up: Projection,
    pub(crate) down: Projection,
    /// Weight of the norm behind the feed-forward network.
    pub(crate) down_norm: Option<Vec<f32>>,
}

impl Layer {
    /// In the order of [`FUSED`].
    fn projections(&self) -> [&Projection; 4] {
        [&self.qkv, &self.output, &self.gate_up, &self.down]
    }

    /// In the order of [`FUSED`].
    fn projections_mut(&mut self) -> [&mut Projection; 4] {
        [&mut self.qkv, &mut self.output, &mut self.gate_up, &mut self.down]
    }
}

/// The token embedding: the file's own blocks, decoded a row at a time, since a step looks up only a few rows.
enum Embedding {
    Blocks(BlockRows),
    Values(Vec<f32>),
}

/// The tensor of the token embedding.
const EMBEDDING: &str = "token_embd.weight";

/// The tensor of the head.
fn head_name(config: &ModelConfig) -> &'static str {
    if config.tied_head { EMBEDDING } else { "output.weight" }
}

/// The modules of a block that stand one below the other in one matrix: those of q, k and v, of the output, of gate and up, of
/// down.
const FUSED: [&[&str]; 4] = [&["attn_q", "attn_k", "attn_v"], &["attn_output"], &["ffn_gate", "ffn_up"], &["ffn_down"]];

/// The branches of one adapter, a place for each matrix of each block.
pub(crate) struct NewBranches(Vec<Option<LowRank>>);

impl NewBranches {
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().flatten().map(LowRank::bytes).sum()
    }
}

/// Everything that the forward pass reads.
pub(crate) struct Weights {
    pub(crate) config: ModelConfig,
    /// What stands between two products.
    pub(crate) activations: Precision,
    /// What keys and values are kept as.
    pub(crate) kept: PageElement,
    /// Positions that the tables hold.
    pub(crate) context: usize,
    pub(crate) rope_style: RopeStyle,
    pub(crate) layers: Vec<Layer>,
    /// Divided by what the logits are divided by.
    pub(crate) final_norm: Vec<f32>,
    pub(crate) head: Matrix,
    embedding: Embedding,
}

impl Weights {
    /// Reads every matrix of the model and the branches of adapters, which a row names by their places here. `DoRA`, which
    /// changes the matrices themselves, may only be alone.
    pub(crate) fn load(
        model: &Model,
        adapters: &[&LoraAdapter],
        (form, precision): (WeightForm, Precision),
        context: usize,
        change: Option<&ChangeRow<'_>>,
    ) -> Result<Self, EngineError> {
        let config = model.config().clone();
        let mut branches: Vec<Branches<'_>> = adapters.iter().map(|adapter| Branches::new(adapter)).collect();
        let layers = model
            .rope_tables(context)?
            .into_iter()
            .enumerate()
            .map(|(layer, rope)| load_layer(model, &config, layer, rope, (form, precision), &mut branches, change))
            .collect::<Result<_, _>>()?;
        branches.iter().try_for_each(Branches::all_used)?;
        let head = matrix((form, precision), &[model.tensor(head_name(&config))?], None, change)?;
        let mut final_norm = vector(model, "output_norm.weight")?;
        scale(&mut final_norm, 1.0 / config.scales.logits);
        let activations = match form {
            // The products would round these values anyway.
            WeightForm::Packed => precision,
            WeightForm::Blocks | WeightForm::Int8 => Precision::F32,
        };
        // Not bf16, where products round to it: in a large bias keys lose there what tells them apart.
        let kept = match precision {
            Precision::F32 => PageElement::F32,
            Precision::Bf16 => PageElement::I16,
        };
        Ok(Self {
            activations,
            kept,
            context,
            rope_style: config.rope_style(),
            layers,
            final_norm,
            head,
            embedding: Embedding::load(&model.tensor(EMBEDDING)?, change)?,
            config,
        })
    }

    /// What an adapter (no `DoRA`) adds to the matrices of `model`, from which these weights were loaded.
    pub(crate) fn branches_of(
        &self,
        model: &Model,
        adapter: &LoraAdapter,
        precision: Precision,
    ) -> Result<NewBranches, EngineError> {
        let mut branches = Branches::new(adapter);
        let mut new = Vec::with_capacity(self.layers.len() * FUSED.len());
        for layer in 0..self.layers.len() {
            for modules in FUSED {
                let adaptation = branches.take(&fused(model, layer, modules)?, precision)?;
                new.push(adaptation.map(|adaptation| adaptation.branch));
            }
        }
        branches.all_used()?;
        Ok(NewBranches(new))
    }

    /// Puts the branches of one more adapter behind those that there are.
    pub(crate) fn add(&mut self, NewBranches(new): NewBranches) {
        for (projection, branch) in self.layers.iter_mut().flat_map(Layer::projections_mut).zip(new) {
            projection.branches.push(branch);
        }
    }

    /// Packs the matrices anew that hold a tensor which `touched` names, as `change` makes them now. With an error some are
    /// changed and some are not.
    pub(crate) fn change(
        &mut self,
        model: &Model,
        precision: Precision,
        touched: &dyn Fn(&str) -> bool,
        change: &ChangeRow<'_>,
    ) -> Result<(), EngineError> {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            for (projection, modules) in layer.projections_mut().into_iter().zip(FUSED) {
                let parts = fused(model, index, modules)?;
                let tensors: Vec<Tensor<'_>> = parts.into_iter().map(|(_, tensor)| tensor).collect();
                if tensors.iter().any(|tensor| touched(&tensor.info().name)) {
                    projection.matrix = Matrix::Packed(pack(precision, &tensors, None, Some(change))?);
                }
            }
        }
        if touched(head_name(&self.config)) {
            let head = model.tensor(head_name(&self.config))?;
            self.head = Matrix::Packed(pack(precision, &[head], None, Some(change))?);
        }
        if touched(EMBEDDING) {
            self.embedding = Embedding::load(&model.tensor(EMBEDDING)?, Some(change))?;
        }
        Ok(())
    }

    /// Writes the embedding of `token` (which is in the vocabulary: see [`Self::check_tokens`]).
    pub(crate) fn embed(&self, token: u32, out: &mut [f32]) {
        let row = token as usize;
        match &self.embedding {
            Embedding::Values(values) => {
                out.copy_from_slice(&values[row * out.len()..(row + 1) * out.len()]);
            }
            Embedding::Blocks(rows) => rows.row(row, out),
        }
        scale(out, self.config.scales.embedding);
    }

    /// Refuses ids that the model does not have.
    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<(), EngineError> {
        let vocabulary = self.config.vocabulary;
        match tokens.iter().find(|&&token| token as usize >= vocabulary) {
            Some(&token) => Err(EngineError::UnknownToken { token, vocabulary }),
            None => Ok(()),
        }
    }

    /// How many of the matrices keep the numbers of their blocks, and how many there are.
    pub(crate) fn kept_numbers(&self) -> (usize, usize) {
        let layers = self.layers.iter().flat_map(|layer| layer.projections().map(|projection| &projection.matrix));
        let matrices: Vec<&Matrix> = layers.chain([&self.head]).collect();
        (matrices.iter().filter(|matrix| matrix.form() != WeightForm::Packed).count(), matrices.len())
    }

    /// Memory of matrices, adapters and embedding.
    pub(crate) fn bytes(&self) -> usize {
        let layer = |layer: &Layer| layer.projections().iter().map(|projection| projection.bytes()).sum::<usize>();
        let embedding = match &self.embedding {
            // The head is these blocks too, where it is not packed.
            Embedding::Blocks(_) if self.config.tied_head && self.head.form() == WeightForm::Blocks => 0,
            Embedding::Blocks(rows) => rows.bytes(),
            Embedding::Values(values) => size_of_val(values.as_slice()),
        };
        self.layers.iter().map(layer).sum::<usize>() + self.head.bytes() + embedding
    }
}

impl Embedding {
    fn load(tensor: &Tensor<'_>, change: Option<&ChangeRow<'_>>) -> Result<Self, EngineError> {
        let Some(change) = change else {
            return Ok(tensor
                .blocks()
                .map_or_else(|| tensor.to_vec().map(Self::Values), |rows| Ok(Self::Blocks(rows)))?);
        };
        let (mut values, info) = (tensor.to_vec()?, tensor.info());
        values.par_chunks_mut(info.columns.max(1)).enumerate().for_each(|(row, values)| change(info, row, values));
        Ok(Self::Values(values))
    }
}

fn load_layer(
    model: &Model,
    config: &ModelConfig,
    layer: usize,
    rope: Option<Arc<RopeTable>>,
    (form, precision): (WeightForm, Precision),
    branches: &mut [Branches<'_>],
    change: Option<&ChangeRow<'_>>,
) -> Result<Layer, EngineError> {
    let name = |module: &str| format!("blk.{layer}.{module}");
    let mut projection = |modules: &[&str]| -> Result<Projection, EngineError> {
        let parts = fused(model, layer, modules)?;
        let taken = branches.iter_mut().map(|branches| branches.take(&parts, precision));
        let adaptations = taken.collect::<Result<Vec<_>, _>>()?;
        let row_factors = adaptations.iter().flatten().find_map(|adaptation| adaptation.row_factors.as_deref());
        let tensors: Vec<_> = parts.into_iter().map(|(_, tensor)| tensor).collect();
        let matrix = matrix((form, precision), &tensors, row_factors, change)?;
        let branches = adaptations.into_iter().map(|adaptation| adaptation.map(|adaptation| adaptation.branch));
        Ok(Projection { matrix, branches: branches.collect() })
    };
    let [qkv, output, gate_up, down] = FUSED;
    let (qkv, output) = (projection(qkv)?, projection(output)?);
    let (gate_up, down) = (projection(gate_up)?, projection(down)?);
    let qkv_bias = if config.attention_bias {
        let mut bias = Vec::with_capacity(qkv.matrix.rows());
        for module in ["attn_q", "attn_k", "attn_v"] {
            bias.extend(vector(model, &format!("{}.bias", name(module)))?);
        }
        Some(bias)
    } else {
        None
    };
    let head_norms = if config.head_norms {
        Some([vector(model, &name("attn_q_norm.weight"))?, vector(model, &name("attn_k_norm.weight"))?])
    } else {
        None
    };
    let behind = |norm: &str| match config.norms {
        NormPlacement::Before => Ok(None),
        NormPlacement::BeforeAndAfter => vector(model, &name(norm)).map(Some),
    };
    Ok(Layer {
        attention_norm: vector(model, &name("attn_norm.weight"))?,
        qkv,
        qkv_bias,
        head_norms,
        attention: config.attention_shape(layer),
        rope,
        output,
        output_norm: behind("post_attention_norm.weight")?,
        mlp_norm: vector(model, &name("ffn_norm.weight"))?,
        gate_up,
        down,
        down_norm: behind("post_ffw_norm.weight")?,
    })
}

/// The names and tensors of modules of a block.
fn fused<'m>(model: &'m Model, layer: usize, modules: &[&str]) -> Result<Vec<(String, Tensor<'m>)>, ModelError> {
    let part = |module: &&str| {
        let name = format!("blk.{layer}.{module}");
        let tensor = model.tensor(&format!("{name}.weight"))?;
        Ok((name, tensor))
    };
    modules.iter().map(part).collect()
}

/// Multiplies all values; a factor of 1 leaves them alone.
pub(crate) fn scale(values: &mut [f32], factor: f32) {
    if factor.to_bits() != 1.0_f32.to_bits() {
        for value in values {
            *value *= factor;
        }
    }
}

fn vector(model: &Model, name: &str) -> Result<Vec<f32>, ModelError> {
    model.tensor(name)?.to_vec()
}

/// Tensors of equal width, one below the other, in a form. Rows that are multiplied by factors are no blocks of the file.
fn matrix(
    (form, precision): (WeightForm, Precision),
    tensors: &[Tensor<'_>],
    row_factors: Option<&[f32]>,
    change: Option<&ChangeRow<'_>>,
) -> Result<Matrix, ModelError> {
    if let (None, None) = (row_factors, change)
        && let Some(matrix) = Matrix::of_blocks(form, precision, tensors)
    {
        return Ok(matrix);
    }
    Ok(Matrix::Packed(pack(precision, tensors, row_factors, change)?))
}

/// Packs tensors of equal width, one below the other, each row multiplied by its factor where there are factors.
fn pack(
    precision: Precision,
    tensors: &[Tensor<'_>],
    row_factors: Option<&[f32]>,
    change: Option<&ChangeRow<'_>>,
) -> Result<PackedMatrix, ModelError> {
    let rows = tensors.iter().map(|tensor| tensor.info().rows).sum();
    let columns = tensors[0].info().columns;
    let failure = Mutex::new(None);
    let matrix = PackedMatrix::pack(precision, rows, columns, &|mut row, out| {
        let factor = row_factors.map(|factors| factors[row]);
        for tensor in tensors {
            if row < tensor.info().rows {
                if let Err(error) = tensor.row(row, out)
                    && let Ok(mut failure) = failure.lock()
                {
                    *failure = Some(error);
                }
                if let Some(change) = change {
                    change(tensor.info(), row, out);
                }
                if let Some(factor) = factor {
                    for value in out.iter_mut() {
                        *value *= factor;
                    }
                }
                return;
            }
            row -= tensor.info().rows;
        }
    });
    match failure.into_inner() {
        Ok(Some(error)) => Err(error),
        _ => Ok(matrix),
    }
}

//! Matrices whose sensitivity is measured together.

/// The group of a tensor in a model of so many layers: its kind, and the third of the layers that it stands in.
pub(super) fn group(tensor: &str, layers: usize) -> String {
    let Some((layer, kind)) = tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return tensor.to_owned();
    };
    let layer = layer.parse::<usize>().unwrap_or(0);
    let third = (3 * layer / layers.max(1)).min(2);
    format!("{}.{third}", kind.trim_end_matches(".weight"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_thirds() {
        assert_eq!(group("token_embd.weight", 30), "token_embd.weight");
        assert_eq!(group("blk.9.ffn_up.weight", 30), "ffn_up.0");
        assert_eq!(group("blk.10.ffn_up.weight", 30), "ffn_up.1");
        assert_eq!(group("blk.29.attn_q.weight", 30), "attn_q.2");
        assert_eq!(group("blk.0.attn_q.weight", 1), "attn_q.0");
    }
}

#[test]
fn q() { let m = espalier_model::Model::open(std::path::Path::new(&std::env::var("QWEN").unwrap())).unwrap(); println!("{:?} {:?} {}", m.config(), m.tokenizer().vocabulary(), m.sha256().unwrap());
 for t in ["token_embd.weight","blk.3.ffn_down.weight","blk.0.attn_q.bias"] { let v=m.tensor(t).unwrap(); println!("{:?} {:?}", v.info(), &v.to_vec().unwrap()[..3]); } }

// SPDX-License-Identifier: GPL-2.0-or-later
//! A kernel that makes its answers up: no sense in them is an error, and never a loss.

use htab_harness::handle::Handle;
use htab_harness::world::{Kind, Wire, World};
use htab_model::record::header;

fn record(index: u32, n_valid: u16, n_invalid: u16) -> Vec<u8> {
    let mut bytes = header(index, n_valid, n_invalid).to_vec();
    bytes.resize(bytes.len() + usize::from(n_valid) * 16, 1);
    bytes
}

/// Saves a table whose kernel answers so: what each iterate returns, up to the first error's sentence.
fn save(answers: &[Vec<u8>]) -> Result<Vec<i32>, String> {
    let from = Handle::new(World::new(Kind::Kernel, Some(18)), 0, None);
    let wire = Wire::default();
    from.setup(&wire).expect("setup");
    from.world.answer(answers.to_vec());
    answers.iter().map(|_| from.iterate(&wire, -1).map_err(|failure| failure.sentence)).collect()
}

#[test]
fn a_kernel_that_makes_no_sense_is_an_error_and_never_a_loss() {
    let first_pass = record(0, 0, 16_384);
    let half = [record(0, 0, 8000), record(8000, 1, 8383)].concat();
    for (answers, why) in [
        (vec![record(1, 0, 16_383)], "leaves out the slots before it"),
        (vec![[record(0, 1, 3), record(6, 1, 0)].concat()], "leaves out the slots before it"),
        (vec![[record(0, 2, 3), record(4, 1, 0)].concat()], "goes backwards"),
        (vec![first_pass.clone(), [record(9, 1, 0), record(3, 1, 0)].concat()], "goes backwards"),
        (vec![record(0, 0, 0)], "names no slots"),
        (vec![record(0, 1, 16_384)], "outside the table"),
        (vec![first_pass.clone(), record(u32::MAX, 1, 0)], "outside the table"),
        (vec![first_pass[..5].to_vec()], "its header is cut short"),
        (vec![half[..20].to_vec()], "its entries are cut short"),
        (vec![vec![0; 1 << 20]], "Input/output error"),
        (vec![record(0, 0, 16_000)], "ended at slot 16000"),
    ] {
        let sentence = save(&answers).expect_err(why);
        assert!(sentence.contains(why), "{sentence}");
    }
    let sense = [half, record(5, 1, 0), vec![]];
    assert_eq!(
        save(&sense).expect("these make sense"),
        [0, 0, 1],
        "three sweeps, of which the last finds nothing"
    );
}

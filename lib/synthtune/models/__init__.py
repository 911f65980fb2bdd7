"""Language models, encoders and seq2seq models: where they come from, and what is computed with them."""

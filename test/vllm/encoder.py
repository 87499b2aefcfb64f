"""encoder.py VOCABULARY FOLDER LABELS: write a tiny BERT of random weights with
the tokenizer of VOCABULARY; with LABELS above 0 it classifies. What it says
means nothing, but it is the same at every start."""

import sys

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel


def main(vocabulary, folder, labels):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(vocabulary)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
                        max_position_embeddings=512, num_labels=max(int(labels), 2))
    model = BertForSequenceClassification(config) if int(labels) else BertModel(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


main(*sys.argv[1:])

"""Adapters and merged models in the forms of others: LiteRT's .tflite, Keras' .keras, PEFT's folders."""

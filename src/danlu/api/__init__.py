"""The Python way: `from danlu import BertForSequenceClassification, AutoModel, pipeline`."""

"""CamemBERT of transformers."""

from transformers.models.camembert import modeling_camembert as stock

from .roberta import roberta_like

family = roberta_like(stock, "Camembert")

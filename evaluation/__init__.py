"""`make evaluate`: mAP of a served model over a labelled data set, beside PyTorch's."""

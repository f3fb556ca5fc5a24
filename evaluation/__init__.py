"""`make evaluate`: mAP of a served model over a labelled data set, alongside PyTorch's."""

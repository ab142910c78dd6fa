"""Pictures of explanations, as tf-explain arranges, colours and saves them."""

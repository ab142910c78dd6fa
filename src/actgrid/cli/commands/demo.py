"""The command `actgrid demo`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from actgrid.cli.command import Options, command
from actgrid.options import FolderOptions, JsonOptions


@command(FolderOptions, JsonOptions, output="actgrid-demo")
def demo(options: Options) -> None:
    """Draw the layers of the embedded network for its photo, and a Grad-CAM heatmap."""
    from actgrid.attribution import explain
    from actgrid.cli import report
    from actgrid.cli.loading import load_model
    from actgrid.demo import find_top_classes, photo
    from actgrid.encoding import make_folder
    from actgrid.figures import save_layers
    from actgrid.models import Extractor, load_images

    output = Path(options["output"])
    make_folder(output)
    network = load_model("demo", "imagenet", safe_mode=True)
    batch = load_images(photo(), model=network)
    # One forward pass gives the activations and the class probabilities.
    head = network.layers[-1]
    extractor = Extractor(network, lambda layer: len(layer.output.shape) > 2 or layer is head)
    activations = extractor(batch)
    top = find_top_classes(activations.pop(head.name)[0])
    about = {"image": "cat.jpg", "model": network.name}
    layers = save_layers(output, extractor.layers, activations, about=about)
    heatmap, file = explain(network, photo()), output / "gradcam.png"
    heatmap.overlay().save(file)
    if options["json"]:
        classes = [{"name": name, "probability": probability} for name, probability in top]
        explained = report.attribution_as_dict(Path("cat.jpg"), heatmap, file)
        facts = report.drawn_layers_as_dict("cat.jpg", output, layers)
        typer.echo(json.dumps(facts | {"top": classes, "explained": explained}))
        return
    report.print_layers(layers)
    report.print_top(top)
    print()
    report.print_attribution(Path("cat.jpg"), heatmap, file)
    report.print_output_folder(output, layers)

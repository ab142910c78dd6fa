"""`actgrid export`."""

from __future__ import annotations

from pathlib import Path

from actgrid.cli.arguments import Images, Model
from actgrid.cli.command import LeftOut, Options, command
from actgrid.options import (
    BatchOptions,
    FolderOptions,
    InputOptions,
    LabelOptions,
    LayerOptions,
    ModelOptions,
    SiteOptions,
    ViewerOptions,
)


@command(
    FolderOptions,
    LayerOptions,
    SiteOptions,
    ViewerOptions,
    LabelOptions,
    InputOptions,
    ModelOptions,
    BatchOptions,
    output="site",
    layers=LeftOut("every layer that can be drawn"),
)
def export(model: Model, images: Images, options: Options) -> None:
    """Write the page of actgrid serve as files with the data in them, for any web server.

    Browsers run the page only from a web server, not from a file.
    """
    import actgrid
    from actgrid.cli import report
    from actgrid.cli.loading import layer_choice, load_model, used_preprocessing
    from actgrid.cli.viewing import viewer_options
    from actgrid.encoding import writable_folder

    # What is wrong with these is said before a model is loaded.
    viewing = viewer_options(images, options)
    output = Path(options["output"])
    writable_folder(output)
    network = load_model(model, **options.of(ModelOptions))
    prepared = used_preprocessing(network, options["preprocess"])
    actgrid.export_site(
        network,
        layers=layer_choice(network, options["layers"]),
        output=output,
        progress=True,
        **viewing,
        **options.of(SiteOptions),
    )
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"{output}: {size / 1e6:,.1f} MB; it has to come from a web server, for example")
    print(f"python -m http.server --directory {output}")
    report.print_preprocessing(prepared)

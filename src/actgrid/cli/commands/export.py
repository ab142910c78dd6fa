"""The command `actgrid export`."""

from __future__ import annotations

from pathlib import Path

from actgrid.cli.arguments import Images, Model
from actgrid.cli.command import NoneMeaning, Options, command
from actgrid.options import (
    BatchOptions,
    FolderOptions,
    InputOptions,
    LabelOptions,
    LayerOptions,
    LoadedModelOptions,
    SiteOptions,
    ViewerOptions,
    VocabularyOptions,
)


@command(
    FolderOptions,
    LayerOptions,
    SiteOptions,
    ViewerOptions,
    LabelOptions,
    InputOptions,
    VocabularyOptions,
    LoadedModelOptions,
    BatchOptions,
    output="site",
    layers=NoneMeaning("all layers that can be drawn"),
)
def export(model: Model, images: Images, options: Options) -> None:
    """Export the viewer as static files that contain its data, for any web server.

    Browsers run the page only from a web server, not from local files.
    """
    import actgrid
    from actgrid.cli import report
    from actgrid.cli.loading import (
        load_model,
        parse_layers,
        read_tokens,
        resolve_preprocessing,
    )
    from actgrid.cli.viewing import read_viewer_options
    from actgrid.encoding import make_folder

    # Invalid options are reported before the model loads, which takes seconds.
    viewing = read_viewer_options(images, options)
    output = Path(options["output"])
    make_folder(output)
    network = load_model(model, **options.select(LoadedModelOptions))
    preprocessing = resolve_preprocessing(network, options["preprocess"])
    viewing["tokens"] = read_tokens(options["tokens"])
    actgrid.export_site(
        network,
        layers=parse_layers(network, options["layers"]),
        output=output,
        progress=True,
        **viewing,
        **options.select(SiteOptions),
    )
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"{output}: {size / 1e6:,.1f} MB; open it through a web server, for example")
    print(f"python -m http.server --directory {output}")
    report.print_preprocessing(preprocessing)

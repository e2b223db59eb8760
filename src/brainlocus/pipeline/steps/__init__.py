"""The steps: where core types, files and stages meet, one module per stage.

A step module has, for each command, a configuration (field names are the option names, descriptions are the help), a
function ``run(config, out, context) -> StepResult`` and a `Step` that joins them; `pipeline.registry` lists it. See
`brainlocus.pipeline.steps.simulate` for a complete example::

    class PruneConfig(StepConfig):
        genotypes: Annotated[InputPath, Positional()] = Field(description="Genotypes (.bed, .pgen, .bgen, .vcf.gz)")
        window: int = Field(200, ge=2, description="Window, in variants")

    def prune(config: PruneConfig, out: Path, context: Context) -> StepResult:
        ...

    PRUNE = Step("genotypes prune", "Choose variants in low LD.", PruneConfig, prune, out="file")
"""

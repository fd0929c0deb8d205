"""Components that are to be refused."""

__all__ = ["refused"]


def refused(kind, *arguments, **options):
    """Makes a component of which Amaranth does not expect that it is used."""
    component = kind.__new__(kind)
    component._MustUse__used = True
    component.__init__(*arguments, **options)

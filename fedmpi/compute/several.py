"""Several networks as one module, so that one vector holds them all, see ``fedmpi.core.kinds``."""

from dataclasses import replace

from torch import nn

from fedmpi.core.kinds import SERVER, kind


class Several(nn.Module):
    """The networks that clients train, and the one that only the server has.

    A pass sends the inputs through every network once, which shows what each of them costs and which
    of its buffers move. It puts out what the first network does.
    """

    def __init__(self, networks, server=None, features=None):
        """``networks`` is ``{name: module}``. ``features(network, inputs) -> (n, ...)`` makes what the
        ``server``'s network takes."""
        super().__init__()
        self.names = tuple(networks)
        for name, network in networks.items():
            if hasattr(self, name):
                raise ValueError(f"among several networks none can be called {name}: call its factory otherwise")
            self.add_module(name, network)
        self.features = features
        if server is not None:
            self.add_module(SERVER, server)

    @property
    def of_clients(self):
        """The networks that clients train, in the order of their names."""
        return [self.get_submodule(name) for name in self.names]

    @property
    def of_server(self):
        """The network that only the server has, or None."""
        return self._modules.get(SERVER)

    def forward(self, inputs):
        outputs = [network(inputs) for network in self.of_clients]
        if self.of_server is not None:
            self.of_server(self.features(self.of_clients[0], inputs))
        return outputs[0]


def networks_of(model):
    """The networks that clients train: those of a ``Several``, or the model itself."""
    return model.of_clients if isinstance(model, Several) else [model]


def laid_out(layout, model, personal):
    """The ``layout`` in which the tensors that stay with clients and those of the server's own network are
    told. ``personal(layout)`` names the former in the layout of one network; None: there are none."""
    if not isinstance(model, Several):
        return layout.with_personal(personal)
    held = [slot.name for slot in layout.slots if slot.name.startswith(SERVER + ".")]
    layout = replace(layout, held=tuple(held))
    if personal is None:
        return layout
    stay = [f"{name}.{tensor}" for name in model.names for tensor in personal(kind(layout, name).layout)]
    return layout.with_personal(lambda _: stay)

"""Several networks as one module, so that one vector holds them all, see ``fedmpi.core.kinds``."""

from dataclasses import replace

from torch import nn

from fedmpi.core.kinds import SERVER, kind


class Several(nn.Module):
    """The networks of the clients, and perhaps a network of the server alone.

    A pass sends the inputs through every network once, to show each network's costs and its moving
    buffers. Its outputs are those of the first network.
    """

    def __init__(self, networks, server=None, features=None):
        """``networks`` is ``{name: module}``. ``features(network, inputs) -> (n, ...)`` makes the
        inputs of the ``server``'s network."""
        super().__init__()
        self.names = tuple(networks)
        for name, network in networks.items():
            if hasattr(self, name):
                raise ValueError(
                    f"among several networks none can be called {name}: "
                    "call its factory otherwise"
                )
            self.add_module(name, network)
        self.features = features
        if server is not None:
            self.add_module(SERVER, server)

    @property
    def of_clients(self):
        """The networks of the clients, in the order of their names."""
        return [self.get_submodule(name) for name in self.names]

    @property
    def of_server(self):
        """The network of the server alone, or None."""
        return self._modules.get(SERVER)

    def forward(self, inputs):
        outputs = [network(inputs) for network in self.of_clients]
        if self.of_server is not None:
            first = self.of_clients[0]
            features = self.features(first, inputs)
            self.of_server(features)
        return outputs[0]


def networks_of(model):
    """The networks of the clients: those of a ``Several``, or the model itself."""
    if isinstance(model, Several):
        return model.of_clients
    return [model]


def laid_out(layout, model, personal):
    """The ``layout`` with the names of the tensors that stay with clients, or with the server.

    ``personal(layout)`` names the clients' tensors in the layout of one network; None: there are
    none.
    """
    if not isinstance(model, Several):
        return layout.with_personal(personal)
    names = [slot.name for slot in layout.slots]
    server_only = [name for name in names if name.startswith(SERVER + ".")]
    layout = replace(layout, server_only=tuple(server_only))
    if personal is None:
        return layout
    stay = []
    for name in model.names:
        own_layout = kind(layout, name).layout
        stay += [f"{name}.{tensor}" for tensor in personal(own_layout)]
    return layout.with_personal(lambda _: stay)

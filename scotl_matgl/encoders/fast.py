"""Faster equals of the costly layers of MatGL's MEGNet and M3GNet, bound to its own modules and weights.

They give what MatGL's layers give, up to rounding (1.5e-5 of the largest value; tests compare every layer), for less:

* A first dense layer on [atom, atom, bond, state] is split, so that atoms are multiplied once and not once per bond.
* MEGNet works on merged atoms and bonds (:func:`scotl_matgl.encoders.graphs.merge_equal`), which count several times
  in means and in the attention of Set2Set.
* M3GNet computes radial functions once per bond and not once per pair of bonds, and weighs its three-body basis once
  and not once per block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def speed_up(network: Any) -> None:
    """Bind the faster layers to a MEGNet or an M3GNet of MatGL; others are left as they are."""
    architecture = type(network).__name__
    replaced: list[tuple[Any, Callable[..., Any]]] = []
    if architecture == "MEGNet":
        replaced = [(block.conv, _megnet_convolution) for block in network.blocks]
        replaced += [(network.node_s2s, _node_set2set), (network.edge_s2s, _edge_set2set)]
        replaced += [(module, _softplus2) for module in network.modules() if type(module).__name__ == "SoftPlus2"]
    elif architecture == "M3GNet":
        replaced = [(block.conv, _m3gnet_convolution) for block in network.graph_layers]
        replaced += [(interaction, _three_body) for interaction in network.three_body_interactions]
        replaced.append((network.basis_expansion, _three_body_basis))
    for module, forward in replaced:
        # An attribute of the instance, so that hooks on the module still run.
        module.forward = MethodType(forward, module)


def _split_linear(
    linear: Any,
    graph: Any,
    atoms: torch.Tensor,
    bonds: torch.Tensor,
    states: torch.Tensor | None = None,
) -> torch.Tensor:
    """``linear([atom at the start, atom at the end, bond, state])`` on every bond."""
    from torch.nn.functional import linear as product

    sizes = [atoms.shape[1], atoms.shape[1], bonds.shape[1]] + ([] if states is None else [states.shape[1]])
    weights = linear.weight.split(sizes, dim=1)
    source, destination = graph.edges()
    start = product(atoms, weights[0], linear.bias)
    if states is not None:
        start += product(states, weights[3]).index_select(0, graph.ndata["crystal"])
    result = product(bonds, weights[2])
    result += start.index_select(0, source)
    result += product(atoms, weights[1]).index_select(0, destination)
    return result


def _apply(layers: Iterable[Any], values: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        values = layer(values)
    return values


def _add_up(values: torch.Tensor, index: torch.Tensor, size: int) -> torch.Tensor:
    return values.new_zeros(size, *values.shape[1:]).index_add_(0, index, values)


def crystal_means(graph: Any, values: torch.Tensor, of: str) -> torch.Tensor:
    """Mean over the ``"atoms"`` or ``"bonds"`` of each crystal, with their multiplicities: (n_crystals, width)."""
    data = graph.ndata if of == "atoms" else graph.edata
    return _add_up(values * data["share"], data["crystal"], graph.batch_size)


# --- MEGNet -----------------------------------------------------------------------------------------------------------


def _megnet_convolution(
    self: Any, graph: Any, bonds: torch.Tensor, atoms: torch.Tensor, states: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Eqs. 1 to 3 of C. Chen et al., Chem. Mater. 31, 3564 (2019)."""
    import torch

    states = states.reshape(graph.batch_size, -1)
    first, *rest = self.edge_func.layers
    bonds = _apply(rest, _split_linear(first, graph, atoms, bonds, states))
    received = _add_up(bonds * graph.edata["share_of_atom"], graph.edges()[1], len(atoms))
    spread = states.index_select(0, graph.ndata["crystal"])
    atoms = self.node_func(torch.hstack([atoms, received, spread]))
    means = crystal_means(graph, bonds, "bonds"), crystal_means(graph, atoms, "atoms")
    return bonds, atoms, self.state_func(torch.hstack([states, *means]))


def _softplus2(_: Any, values: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import softplus

    return softplus(values).sub_(math.log(2.0))


def _node_set2set(self: Any, graph: Any, values: torch.Tensor) -> torch.Tensor:
    return _set2set(self, values, graph.ndata["crystal"], graph.ndata["log_count"], graph.batch_size)


def _edge_set2set(self: Any, graph: Any, values: torch.Tensor) -> torch.Tensor:
    return _set2set(self, values, graph.edata["crystal"], graph.edata["log_count"], graph.batch_size)


def _set2set(
    self: Any, values: torch.Tensor, crystal: torch.Tensor, log_count: torch.Tensor, n_crystals: int
) -> torch.Tensor:
    """Set2Set (O. Vinyals et al., arXiv:1511.06391) in which an element may stand for several equal ones."""
    import torch

    zeros = values.new_zeros(self.n_layers, n_crystals, self.input_dim)
    memory = (zeros, zeros)
    output = values.new_zeros(n_crystals, 2 * self.input_dim)
    for _ in range(self.n_iters):
        query, memory = self.lstm(output.unsqueeze(0), memory)
        query = query.squeeze(0)
        logits = (values * query.index_select(0, crystal)).sum(dim=1) + log_count
        top = logits.new_full((n_crystals,), -torch.inf).scatter_reduce_(0, crystal, logits, "amax")
        weights = torch.exp(logits - top.index_select(0, crystal)).unsqueeze(1)
        mean = _add_up(values * weights, crystal, n_crystals) / _add_up(weights, crystal, n_crystals)
        output = torch.cat([query, mean], dim=1)
    return output


# --- M3GNet: C. Chen, S. P. Ong, Nature Computational Science 2, 718 (2022) -------------------------------------------


def _three_body_basis(self: Any, line_graph: Any) -> torch.Tensor:
    """Radial times angular functions of every pair of bonds: (n_pairs, max_l · max_n)."""
    radial = self.sbf(line_graph.ndata["bond_dist"]).index_select(0, line_graph.edges()[1])
    angular = self.shf(line_graph.edata["cos_theta"], line_graph.edata["phi"])
    basis: torch.Tensor = radial.reshape(-1, self.max_l, self.max_n) * angular.unsqueeze(2)
    return basis.reshape(-1, self.max_l * self.max_n)


def _three_body(
    self: Any,
    graph: Any,
    line_graph: Any,
    basis: torch.Tensor,
    envelope: torch.Tensor,
    atoms: torch.Tensor,
    bonds: torch.Tensor,
) -> torch.Tensor:
    """Eqs. 2 and 3: what the other bonds of its atom tell a bond."""
    first, second = line_graph.edges()
    if "weighted" not in line_graph.edata:
        line_graph.edata["weighted"] = basis * (envelope[first] * envelope[second]).unsqueeze(1)
        line_graph.edata["end"] = graph.edges()[1].index_select(0, second)
    messages = self.update_network_atom(atoms).index_select(0, line_graph.edata["end"])
    messages *= line_graph.edata["weighted"]
    # The bonds in pairs stand first; without a message the update of a bond is zero, because it has no bias.
    updated = bonds.clone()
    updated[: line_graph.num_nodes()] += self.update_network_bond(_add_up(messages, first, line_graph.num_nodes()))
    return updated


def _m3gnet_convolution(
    self: Any, graph: Any, bonds: torch.Tensor, atoms: torch.Tensor, states: None
) -> tuple[torch.Tensor, torch.Tensor, None]:
    """Eqs. 4 and 5, without states."""
    radial = graph.edata["rbf"]

    def gated(network: Any, weight: Any, bonds: torch.Tensor) -> torch.Tensor:
        value, gate = (
            _apply(branch[1:], _split_linear(branch[0], graph, atoms, bonds))
            for branch in (network.layers, network.gates)
        )
        value *= gate
        value *= weight(radial)
        return value

    bonds = bonds + gated(self.edge_update_func, self.edge_weight_func, bonds)
    messages = gated(self.node_update_func, self.node_weight_func, bonds)
    # MatGL adds up at the end of a bond.
    return bonds, atoms + _add_up(messages, graph.edges()[1], len(atoms)), states

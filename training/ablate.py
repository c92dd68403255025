# SPDX-License-Identifier: Apache-2.0
"""Train one adapter for each arm of an ablation, on one frozen base.

``python -m training.ablate --seeds 0`` runs the arms one after the other. Run it again after it
was stopped: arms that are done are left alone, the one that was cut off goes on where it was.
Other arguments are handed on to ``training.train fit``: ``--model.backbone DIR``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from smoothdino_model.weights.checkpoint import ADAPTER_CONFIG

CONFIGS = Path(__file__).parent / 'configs'


def main(argv: Sequence[str] | None = None) -> None:
    args, handed_on = _parser().parse_known_args(argv)
    arms = yaml.safe_load(args.arms_file.read_text(encoding='utf-8'))
    unknown = set(args.arms or ()) - set(arms)
    if unknown:
        known = ', '.join(arms)
        raise SystemExit(f'--arms: expected some of {known}, got {", ".join(sorted(unknown))}')
    runs = [(arm, seed) for seed in args.seeds for arm in args.arms or arms]
    adapters = []
    for number, (arm, seed) in enumerate(runs, 1):
        name = f'{arm}_{seed}'
        adapter = args.output / name / 'adapter'
        adapters.append(f'{name}={adapter}')
        if (adapter / ADAPTER_CONFIG).exists():
            print(f'[{number}/{len(runs)}] {name} is done', flush=True)
            continue
        print(f'[{number}/{len(runs)}] {name}', flush=True)
        logger = '--trainer.logger.init_args'
        command = [
            *(sys.executable, '-m', 'training.train', 'fit', '--config', str(args.config)),
            *(f'--seed_everything={seed}', f'--data.seed={seed}', '--ckpt_path=last'),
            *(f'{logger}.save_dir={args.output}', f'{logger}.name={name}'),
            *(f'--{key}={json.dumps(value)}' for key, value in arms[arm].items()),
            *handed_on,
        ]
        if subprocess.run(command).returncode:
            raise SystemExit(f'{name} has failed: correct what it says and run this again')
    print('Compare them on frames that neither base nor adapters have seen, for example:')
    print('python -m training.evaluate --source room nyu --adapter', *adapters)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0],
        allow_abbrev=False,
        epilog='Others: training.train fit.',
    )
    add = parser.add_argument
    add('--config', type=Path, default=CONFIGS / 'ablation.yaml', help='what all arms share')
    add('--arms-file', type=Path, default=CONFIGS / 'ablation_arms.yaml', help='what differs')
    add('--arms', nargs='+', default=None, help='only these (default: all)')
    add('--seeds', type=int, nargs='+', default=[0])
    add('--output', type=Path, default=Path('runs/ablation'), help='one folder per arm and seed')
    return parser


if __name__ == '__main__':
    main()

"""The publications that recipes name in their field `paper`, as BibTeX."""

BIBTEX = {
    "robrank": """@article{zhou2021robrank,
  title = {Adversarial Attack and Defense in Deep Ranking},
  author = {Mo Zhou and Le Wang and Zhenxing Niu and Qilin Zhang and Nanning Zheng and Gang Hua},
  journal = {arXiv preprint arXiv:2106.03614},
  year = {2021},
}""",
    "est": """@inproceedings{zhou2020ranking,
  title = {Adversarial Ranking Attack and Defense},
  author = {Mo Zhou and Zhenxing Niu and Le Wang and Qilin Zhang and Gang Hua},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year = {2020},
  note = {arXiv:2002.11293},
}""",
    "robdml": """@inproceedings{zhou2022enhancing,
  title = {Enhancing Adversarial Robustness for Deep Metric Learning},
  author = {Mo Zhou and Vishal M. Patel},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2022},
  note = {arXiv:2203.01439},
}""",
    "catride": """@inproceedings{tian2024collapse,
  title = {Collapse-Aware Triplet Decoupling for Adversarially Robust Image Retrieval},
  author = {Qiwei Tian and Chenhao Lin and Zhengyu Zhao and Qian Li and Chao Shen},
  booktitle = {International Conference on Machine Learning (ICML)},
  year = {2024},
  note = {arXiv:2312.07364},
}""",
    "roleascent": """@article{panum2021exploring,
  title = {Exploring Adversarial Robustness of Deep Metric Learning},
  author = {Thomas Kobber Panum and Zi Wang and Pengyu Kan and Earlence Fernandes and Somesh Jha},
  journal = {arXiv preprint arXiv:2102.07265},
  year = {2021},
}""",
    "madry": """@inproceedings{madry2018towards,
  title = {Towards Deep Learning Models Resistant to Adversarial Attacks},
  author = {Aleksander Madry and Aleksandar Makelov and Ludwig Schmidt and Dimitris Tsipras and Adrian Vladu},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year = {2018},
  note = {arXiv:1706.06083},
}""",
}
TITLES = {
    "robrank": "Adversarial Attack and Defense in Deep Ranking (arXiv:2106.03614): ACT, ERS, rob28 and rob224",
    "est": "Adversarial Ranking Attack and Defense (ECCV 2020, arXiv:2002.11293): CA, QA, EST",
    "robdml": "Enhancing Adversarial Robustness for Deep Metric Learning (CVPR 2022, arXiv:2203.01439): HM, LGA, ICS",
    "catride": "Collapse-Aware Triplet Decoupling (ICML 2024, arXiv:2312.07364): CA-TRIDE",
    "roleascent": "Exploring Adversarial Robustness of Deep Metric Learning (arXiv:2102.07265): one role at a time",
    "madry": "Towards Deep Learning Models Resistant to Adversarial Attacks (arXiv:1706.06083): training on PGD",
}


def bibtex(keys: list[str]) -> str:
    """The entries of these keys, each once; keys that no publication has are passed over."""
    return "\n\n".join(BIBTEX[key] for key in dict.fromkeys(keys) if key in BIBTEX)

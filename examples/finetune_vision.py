"""Teaches a vision model what it sees, with Unsloth: a CUDA script, and one line more.

python examples/finetune_vision.py unsloth/gemma-3-4b-it     or any folder with a model that sees
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import sys

import torch
import unsloth  # noqa: F401
from PIL import Image, ImageDraw
from trl import SFTConfig, SFTTrainer
from unsloth import FastVisionModel
from unsloth.trainer import UnslothVisionDataCollator

model, tokenizer = FastVisionModel.from_pretrained(
    model_name=sys.argv[1],
    load_in_4bit=True,
    use_gradient_checkpointing="unsloth",
)
model = FastVisionModel.get_peft_model(
    model,
    finetune_vision_layers=True,
    finetune_language_layers=True,
    finetune_attention_modules=True,
    finetune_mlp_modules=True,
    r=16,
    lora_alpha=16,
    lora_dropout=0,
    bias="none",
    random_state=3407,
)

COLOURS = ["red", "green", "blue", "white"]
QUESTION = "What do you see?"


def picture(index: int) -> tuple[Image.Image, str]:
    """A square or a circle on black, and what it is."""
    image = Image.new("RGB", (64 + 8 * (index % 5), 64))
    colour, shape = COLOURS[index % 4], ["square", "circle"][index // 4 % 2]
    pen = ImageDraw.Draw(image)
    (pen.rectangle if shape == "square" else pen.ellipse)((16, 16, 48, 48), fill=colour)
    return image, f"a {colour} {shape}"


def conversation(index: int) -> dict:
    """The question about a picture, and the answer."""
    image, words = picture(index)
    question = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
    answer = [{"type": "text", "text": words}]
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


FastVisionModel.for_training(model)
trainer = SFTTrainer(
    model=model,
    tokenizer=tokenizer,
    data_collator=UnslothVisionDataCollator(model, tokenizer),
    train_dataset=[conversation(index) for index in range(32)],
    args=SFTConfig(
        output_dir="outputs",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        warmup_steps=2,
        max_steps=20,
        learning_rate=2e-3,
        logging_steps=1,
        optim="adamw_8bit",
        weight_decay=0.01,
        lr_scheduler_type="linear",
        seed=3407,
        fp16=not torch.cuda.is_bf16_supported(),
        bf16=torch.cuda.is_bf16_supported(),
        report_to="none",
        save_strategy="no",
        remove_unused_columns=False,
        dataset_text_field="",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=2048,
    ),
)
trainer.train()
model.save_pretrained("vision-adapter")
tokenizer.save_pretrained("vision-adapter")

FastVisionModel.for_inference(model)
image, expected = picture(5)
asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
inputs = tokenizer(
    image,
    tokenizer.apply_chat_template(asked, add_generation_prompt=True),
    add_special_tokens=False,
    return_tensors="pt",
).to("cuda")
tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False, use_cache=True)

losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(f"loss:     {sum(losses[:5]) / 5:.3f} over the first five steps, {sum(losses[-5:]) / 5:.3f} over the last")
print(f"picture:  {expected}")
print(f"answer:   {tokenizer.decode(tokens[0, inputs['input_ids'].shape[1] :], skip_special_tokens=True).strip()}")
print("adapter:  vision-adapter")

"""Fine-tunes SmolLM2-135M-Instruct on dialogues with Unsloth: a CUDA script, and one line more.

python examples/prepare_smollm2.py demo
python examples/finetune.py
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import torch
import unsloth  # noqa: F401
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel
from unsloth.chat_templates import get_chat_template, train_on_responses_only

model, tokenizer = FastLanguageModel.from_pretrained(
    model_name="demo/SmolLM2-135M-Instruct",
    max_seq_length=512,
    dtype=None,
    load_in_4bit=False,
)
model = FastLanguageModel.get_peft_model(
    model,
    r=16,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    lora_alpha=16,
    lora_dropout=0,
    bias="none",
    use_gradient_checkpointing="unsloth",
    random_state=3407,
)
tokenizer = get_chat_template(tokenizer, chat_template="chatml")


def answer(question: str) -> str:
    """What the model says to a question, greedily."""
    FastLanguageModel.for_inference(model)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    ).to("cuda")
    tokens = model.generate(**inputs, max_new_tokens=32, do_sample=False, use_cache=True)
    FastLanguageModel.for_training(model)
    return tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


QUESTION = "What is a megabyte?"
before = answer(QUESTION)

dataset = load_dataset("json", data_files="demo/dialogues.jsonl", split="train")
dataset = dataset.map(
    lambda rows: {"text": [tokenizer.apply_chat_template(row, tokenize=False) for row in rows["messages"]]},
    batched=True,
)
trainer = SFTTrainer(
    model=model,
    tokenizer=tokenizer,
    train_dataset=dataset,
    args=SFTConfig(
        output_dir="demo/outputs",
        dataset_text_field="text",
        max_length=512,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        warmup_steps=3,
        max_steps=40,
        learning_rate=5e-4,
        logging_steps=1,
        optim="adamw_8bit",
        weight_decay=0.01,
        lr_scheduler_type="linear",
        seed=3407,
        fp16=not torch.cuda.is_bf16_supported(),
        bf16=torch.cuda.is_bf16_supported(),
        report_to="none",
        save_strategy="no",
    ),
)
trainer = train_on_responses_only(
    trainer, instruction_part="<|im_start|>user\n", response_part="<|im_start|>assistant\n"
)
trainer.train()

model.save_pretrained("demo/adapter")
tokenizer.save_pretrained("demo/adapter")
model.save_pretrained_merged("demo/merged", tokenizer, save_method="merged_16bit")

losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(f"loss:         {sum(losses[:5]) / 5:.3f} over the first five steps, {sum(losses[-5:]) / 5:.3f} over the last")
print(f"question:     {QUESTION}")
print(f"before:       {before}")
print(f"after:        {answer(QUESTION)}")
print(f"peak memory:  {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on {torch.cuda.get_device_name()}")
print("adapter:      demo/adapter")
print("merged model: demo/merged")
